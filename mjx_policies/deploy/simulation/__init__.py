"""The part of `deploy` that needs MuJoCo: simulated robots, the gate before hardware, episodes of a simulated arm."""
