"""What makes a development or serving environment out of a clone. Standard library only, so that it runs before pip."""
