"""Deploy a trained model: choose among its variants by measuring, and write a folder that runs."""
