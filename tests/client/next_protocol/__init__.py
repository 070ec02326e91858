"""Protocol 0.1.26 as users see it: action kinds, policies, denial details and observe mode."""
