"""Speed of Linkspan beside its peers: both sides in one run, on one machine, interleaved."""
