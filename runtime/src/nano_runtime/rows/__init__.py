"""Lists of pictures to draw: files with a row for each prompt, read and checked before anything is loaded."""
