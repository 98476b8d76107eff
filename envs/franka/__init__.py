"""The Franka arm: the robot, its kinematics, what an action means, and its tasks."""
