"""Tables, repositories and the dataset store: the only room that knows SQL and files of points."""
