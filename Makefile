# Every verb makes .venv with the locked dependencies first, where that is not done yet.
# PYTHON chooses the interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/installed

# The stamp names the place that .venv was finished for; `installing` is there until it is. A .venv
# that does not run, was moved, was left half done, or is of another Python than the one asked for
# is made anew; one that somebody else made is installed into.
asked := $(if $(filter file default,$(origin PYTHON)),,$(shell $(PYTHON) -c \
	'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null))
sound := $(shell exec 2>/dev/null; [ ! -e .venv/installing ] && $(PY) -I -c 'import sys, pip; \
	sys.exit("$(asked)" not in ("", "%d.%d" % sys.version_info[:2]))' && { [ ! -e $(STAMP) ] \
	|| { [ "$$(cat $(STAMP))" = "$$(pwd -P)" ] && $(PY) -I -c 'import click, mobiledeploy'; }; } \
	&& echo yes)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install emulator oracle demo gate test test-quick test-slow coverage lint docs lock train-demo benchmarks clean FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## .venv with the locked dependencies, and mobiledeploy itself

demo: $(STAMP) ## the main job: a MobileNet to TFLite and ONNX, timed here, counted on an ARM core
	@.venv/bin/mobiledeploy export --alpha 0.5 --res 160
	@.venv/bin/mobiledeploy bench
	@if .venv/bin/mobiledeploy doctor --emulator >/dev/null; \
		then .venv/bin/mobiledeploy bench --device emulator:cortex-a76; \
		else echo "no emulated core: its instructions are left out (make emulator)" >&2; fi

# Another machine's kernels flip a few of the 1,000 images: margins wide enough for that, and too
# narrow for a conversion that went wrong.
GATE := --baseline tests/demo-baseline.json --margin 2 --float-margin 3
GATED := $(foreach f,tflite onnx,build/mobilenet_v1_0.25_96_demo/int8_ptq.$f)

gate: $(STAMP) ## our own demo against its accepted accuracy; ACCEPT=1 accepts what is made now
	@.venv/bin/mobiledeploy export --quiet --alpha 0.25 --res 96 --recipe float32,int8_ptq >/dev/null
	@.venv/bin/mobiledeploy check $(GATED) $(GATE) $(if $(ACCEPT),--update-baseline)

TESTS := -m pytest -m "not slow" --numprocesses auto --dist worksteal

test: $(STAMP) ## the tests, but for the slow ones
	@$(PY) $(TESTS)

test-quick: $(STAMP) ## the tests without TensorFlow and converted files, in less than a minute
	@$(PY) $(TESTS) --quick

coverage: $(STAMP) ## make test, and the lines that it runs in all its processes: 90 % at least
	@rm -f .coverage .coverage.*
	@$(PY) -m coverage run $(TESTS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report --skip-covered --sort=miss

test-slow: $(STAMP) ## the slow tests: full matrices
	@$(PY) -m pytest -m slow

lint: $(STAMP) ## format, lint, types, and the rules of the house
	@$(PY) -m ruff format --check --quiet || { echo "run: $(PY) -m ruff format"; exit 1; }
	@$(PY) -m ruff check --quiet
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-logo

docs: $(STAMP) ## the pages and the reference of the Python API as a site in build/docs
	@$(PY) -m mkdocs build --quiet --strict
	@echo build/docs/index.html

COMPILE := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: $(STAMP) ## the locks from pyproject.toml and all *.in; UPGRADE=1 takes the newest that fit
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --extra all --extra dev --extra docs --extra sign \
		--output-file requirements.lock pyproject.toml
	@for apart in tests/oracles/*.in mobiledeploy/core/environments/*.in; do \
		$(COMPILE) $(if $(UPGRADE),--upgrade) \
		$$(sed -n 's/^# *without: //p' "$$apart" | tr ' ' '\n' | sed 's/^/--no-emit-package /') \
		--output-file "$${apart%.in}.lock" "$$apart" || exit; done

train-demo: $(STAMP) ## the demo weights, trained anew on the built-in images (an hour or more)
	@$(PY) tools/demo_weights.py --alpha 0.5 --alpha 0.25

emulator: $(STAMP) ## emulated ARM cores, fetched and built into the user's cache
	@.venv/bin/mobiledeploy doctor --emulator

oracle: $(STAMP) ## judges of our files that do not fit the lock, in the user's cache, for the tests
	@$(PY) -m tests.oracles.environment

benchmarks: $(STAMP) ## our own speed beside plain scripts and peers; bad inputs and kills
	@.venv/bin/mobiledeploy export --quiet --alpha 0.5 --res 160 >/dev/null
	@missed=; for script in benchmarks/[a-z]*.py; do echo "$$script"; \
		$(PY) "$$script" || missed="$$missed $$script"; done; \
		[ -z "$$missed" ] || { echo "missed its bar, or failed:$$missed" >&2; exit 1; }

clean: ## removes what was built, and the tools' caches; measurements (.mobiledeploy) stay
	@rm -rf build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find mobiledeploy tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml $(if $(sound),,FORCE)
	@$(PYTHON) -c 'pass' 2>/dev/null || { echo "error: no $(PYTHON) here;" \
		"apt install python3 python3-venv, or make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "error: $(PYTHON) is $$($(PYTHON) -V), and 3.11 to 3.13 is needed;" \
		"make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "error: Python's venv module is missing; apt install python3-venv" >&2; exit 1; }
	@[ -n "$(sound)" ] || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	@pwd -P > .venv/installing
ifeq ($(shell uname -s),Linux)
	@echo "installing $$(grep -c '^[a-z].*==' requirements.lock) packages into .venv:" \
		"about 2 GB, a minute or two" >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --only-binary :all: \
		--require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
else
	@echo "installing the base package only: the lock and the extras are for Linux" >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check -e .
endif
	@mv .venv/installing $(STAMP)

FORCE:
