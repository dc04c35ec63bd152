"""Where the teacher's signal falls, token by token, over hundreds of rollouts."""
