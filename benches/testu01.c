/* Holds 32-bit words from stdin to a battery of TestU01 (L'Ecuyer & Simard, 2007); the report goes to stdout.
   Fails if a p-value is outside [0.001, 0.999], as the summary of the report has it. See testu01.sh. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <testu01/bbattery.h>
#include <testu01/unif01.h>

#define WORDS (1 << 18)

static unsigned int next_word(void) {
    static uint32_t words[WORDS];
    static size_t next = 0, read = 0;
    if (next == read) {
        next = 0;
        read = fread(words, sizeof *words, WORDS, stdin);
        if (read == 0) {
            fprintf(stderr, "testu01: the stream has ended\n");
            exit(2);
        }
    }
    return words[next++];
}

int main(int argc, char **argv) {
    const char *battery = argc == 2 ? argv[1] : "";
    char name[] = "Lanes of unitmass"; /* TestU01 cuts at a colon */
    unif01_Gen *generator = unif01_CreateExternGenBits(name, next_word);
    if (strcmp(battery, "smallcrush") == 0) {
        bbattery_SmallCrush(generator);
    } else if (strcmp(battery, "crush") == 0) {
        bbattery_Crush(generator);
    } else if (strcmp(battery, "bigcrush") == 0) {
        bbattery_BigCrush(generator);
    } else {
        fprintf(stderr, "usage: testu01 smallcrush|crush|bigcrush < words\n");
        return 2;
    }
    unif01_DeleteExternGenBits(generator);
    for (int i = 0; i < bbattery_NTests; i++) {
        const double p = bbattery_pVal[i];
        if (p >= 0 && (p < 0.001 || p > 0.999)) { /* negative: the test was not done */
            return 1;
        }
    }
    return 0;
}
