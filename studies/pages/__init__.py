"""What every HTML page and PNG is made with."""
