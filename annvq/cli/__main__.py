from annvq.cli import main

main()
