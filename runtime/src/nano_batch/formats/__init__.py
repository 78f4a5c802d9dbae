"""Forms of a finished job that other tools open: WebDataset, Parquet, GenEval's folders."""
