"""What tests of several rooms share: servers that misbehave on cue, and the like. No test lives here."""
