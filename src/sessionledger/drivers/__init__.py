"""The drivers that come with the library. They are found by entry point, like anybody's."""
