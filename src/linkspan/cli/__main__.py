"""`python -m linkspan.cli`, the same as `linkspan`."""

from linkspan.cli import main

main()
