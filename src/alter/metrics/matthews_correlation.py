"""Matthews correlation: the correlation of two labelings, robust to unequal label sizes.

    mcc = (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))

for two labels; for more, the generalisation R_K (Gorodkin, 2004). From -1 to 1, 0 is chance; the score of CoLA in GLUE. Where all
references or all predictions are one label the correlation is not defined and the score is 0, a perfect match included. `labels`
does not change it: the formula needs all rows.
"""

from __future__ import annotations

from alter.metrics._checks import Values, encode

KIND = "classification"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the Matthews correlation, -1 to 1; 0 where either side holds one label only.

    Raises:
        TaskError: the rows do not fit together.
    """
    from sklearn.metrics import matthews_corrcoef

    codes = encode("matthews_correlation", predictions, references)
    if len(set(codes.predictions)) == 1 or len(set(codes.references)) == 1:
        return 0.0
    return float(matthews_corrcoef(codes.references, codes.predictions))
