"""Pictures and videos of robots: a ray tracer in JAX, and what makes mp4 files of its pictures."""
