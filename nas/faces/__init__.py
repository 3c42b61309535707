"""The renderer of faces: people, light and camera from seeds."""
