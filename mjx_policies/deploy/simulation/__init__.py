"""What needs MuJoCo: simulated robots, the gate before hardware, and episodes of a simulated arm."""
