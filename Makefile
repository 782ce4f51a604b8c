# make demo, make test: both make .venv and install into it all that they need.
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The demo in figures: these decide how long it takes.
DEMO := demo
DEMO_RECIPE := salt
DEMO_COUNT := 400
DEMO_EPOCHS := 8
DEMO_SEED := 1
DEMO_VARY := --vary model.encoder=tf_efficientnet_lite0,tf_efficientnet_lite1 --vary 'loss.name=bce_dice,0.5*bce_dice + 0.5*lovasz'
# Ten times the recipe's learning rate: it is made for 1600 steps, the demo takes 80.
DEMO_SET := --set training.epochs=$(DEMO_EPOCHS) --set optimizer.learning_rate=0.001 \
	--set inference.threshold=validation --set inference.minimum_area=validation

.PHONY: help demo test lint test-slow bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       generate seismic data, train four small experiments, compare, predict, write a submission"
	@echo "make test       linters, types and tests"
	@echo "make lint       linters and types alone"
	@echo "make test-slow  the tests that take minutes"
	@echo "make bench      training beside the plain loop, in turn, into benchmarks/results: about 45 minutes"
	@echo "make clean      remove $(VENV), $(DEMO)/ and caches"

demo: $(VENV)/.installed-offline
	rm -rf $(DEMO)
	$(BIN)/perpixel synthesize $(DEMO_RECIPE) --out $(DEMO)/salt --count $(DEMO_COUNT) --seed $(DEMO_SEED)
	$(BIN)/perpixel grid $(DEMO_RECIPE) --data $(DEMO)/salt --run $(DEMO)/grid $(DEMO_VARY) $(DEMO_SET)
	$(BIN)/perpixel predict $(DEMO)/grid $(DEMO)/salt/test/images --out $(DEMO)/predictions
	$(BIN)/perpixel submit $(DEMO)/grid --data $(DEMO)/salt --out $(DEMO)/submission.csv
	@echo
	@echo "Look at: $(DEMO)/grid/table.md         the four experiments, best first"
	@echo "         $(DEMO)/grid/curves.png       their validation curves"
	@echo "         $(DEMO)/predictions/          the best one's masks and overlays"
	@echo "         $(DEMO)/submission.csv        as the competition wants it"

test: lint
	$(BIN)/pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/suite.py

clean:
	rm -rf $(VENV) $(DEMO) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# $(VENV)/.installed-EXTRA is newer than what it was installed from. torch comes in the same call as the
# rest: apart from its pin in constraints.txt, pip would take another build of it.
$(VENV)/.installed-%: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing perpixel[$*] into $(VENV): about a minute, more when the network is slow ..."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$*]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "perpixel needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
