"""Job map: predictors over an area in, probability, uncertainty and ranked targets out."""
