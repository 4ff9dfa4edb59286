"""``python -m mobiledeploy`` is the console script."""

from mobiledeploy.cli.main import main

if __name__ == "__main__":
    main()
