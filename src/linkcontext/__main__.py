"""`python -m linkcontext` is `linkcontext`."""

from linkcontext.cli import main

main()
