# Two commands on a fresh machine (Python 3.11-3.13, git, pip, make): `make mini` and `make test`.
# Everything is installed into .venv; set VENV to use another place, PYTHON to choose the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
RUN := OMP_NUM_THREADS=1 PYTHONHASHSEED=0

.PHONY: dev fmt lint type test mini clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || ($(PYTHON) -m pip install --user virtualenv && $(PYTHON) -m virtualenv $(VENV))

# what a user needs: the package, and the synthesiser of the embedded corpus
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[synth]'
	@touch $@

# what a developer needs on top; .dev/mynah are links through which static tools see the package
$(VENV)/.developed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,synth,hf,audio,lm,demo,export,submit,cluster]'
	@mkdir -p .dev/mynah
	@for f in upstream downstream tasks recipes; do ln -sfn ../../$$f .dev/mynah/$$f; done
	@for f in recipes/_mynah/*; do case $$f in *__pycache__) ;; *) ln -sf ../../$$f .dev/mynah/;; esac; done
	@touch $@

dev: $(VENV)/.developed

fmt: dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PYTHONPATH=.dev $(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck -x -P SCRIPTDIR egs/*/run.sh .ci/run

type: dev
	$(BIN)/mypy

test: dev
	$(RUN) $(BIN)/python -m pytest -q -n $(JOBS) tests

mini: $(VENV)/.installed
	PATH="$(abspath $(BIN)):$$PATH" bash egs/mini/run.sh

clean:
	rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .dev
