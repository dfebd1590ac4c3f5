"""Rectified flow: the path from noise to pictures and the ODE solver that follows a learned velocity."""
