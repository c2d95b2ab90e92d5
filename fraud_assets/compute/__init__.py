"""Pure computation: frames, numbers and instants in; frames and records out."""
