//! What a predictor learns of a world that is known.
