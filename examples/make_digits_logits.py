"""Make the data of `unitmass demo`: logits of the 1,797 digits that scikit-learn bundles (UCI, 8 x 8 pixels).

A logistic regression is fitted on every second digit (0, 2, 4, ...), so that the others (1, 3, 5, ...) are unseen. It
is regularised so that its probabilities on those are about right: C is the power of two with the least log loss under
cross-validation within the first half. Run with scikit-learn installed: python examples/make_digits_logits.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

FOLDER = Path(__file__).parent / "data"


def main() -> None:
    """Fit, score and write the logits (float32), the labels and the images (uint8, 0 to 16)."""
    digits = load_digits()
    x, y = digits.data / 16.0, digits.target

    def model(exponent: int) -> LogisticRegression:
        return LogisticRegression(C=2.0**exponent, max_iter=5000, tol=1e-8)

    def log_loss(exponent: int) -> float:
        return -cross_val_score(model(exponent), x[::2], y[::2], scoring="neg_log_loss", cv=5).mean()

    best = min(range(-4, 9), key=log_loss)
    fitted = model(best).fit(x[::2], y[::2])
    logits = fitted.decision_function(x).astype(np.float32)
    FOLDER.mkdir(exist_ok=True)
    np.save(FOLDER / "digits_logits.npy", logits)
    np.save(FOLDER / "digits_labels.npy", y.astype(np.uint8))
    np.save(FOLDER / "digits_images.npy", digits.images.astype(np.uint8))
    print(f"C = 2**{best}, accuracy on the unseen half: {fitted.score(x[1::2], y[1::2]):.4f}")


if __name__ == "__main__":
    main()
