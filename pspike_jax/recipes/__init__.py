"""How single families are fitted where `training.fit` is not how: alternations, games, sessions."""
