"""What tests of several folders share: servers that misbehave on cue, and the like. No test lives here."""
