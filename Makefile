# Each target creates .venv and installs what is missing; the second time that takes no time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
COMPILED := $(wildcard dsp/*.pyx dsp/*.h mediaproxy/media/*.pyx)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-unit check bench fuzz soak peers clean

demo: $(READY)
	$(BIN)/flattone demo

# What wants a processor, or only waits, runs beside the tests that want to be in time, and behind them.
BESIDE := tests/behaviour/test_mask_command.py tests/behaviour/test_scan_command.py \
  tests/interop/test_signalling.py::test_session_timer_expiry_ends_the_call

test: $(READY) peers
	@mkdir -p build
	@nice -n 19 $(BIN)/pytest tests/unit $(BESIDE) >build/beside.log 2>&1 & beside=$$!; \
	$(BIN)/pytest tests/behaviour tests/interop $(addprefix --deselect ,$(BESIDE)); others=$$?; \
	wait $$beside; besides=$$?; cat build/beside.log; \
	exit $$((others | besides))

test-unit: $(READY)
	$(BIN)/pytest tests/unit

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# pesq is compiled on the spot; without it one row of the masking table is left out.
bench: $(READY) peers
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --require-hashes -r benchmarks/pesq.txt || echo "pesq needs a C compiler" >&2
	@failed=0; for name in masking decode dsp_cost calls naive sip capture agent scan webrtc; do \
	  $(BIN)/python -m benchmarks.$$name --json benchmarks/results/$$name.json || failed=1; done; exit $$failed

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz.sip_stack 1000000
	FLATTONE_FUZZ=1000000 $(BIN)/pytest tests/unit/test_fuzz.py tests/unit/test_fuzz_wire.py

soak: $(READY) peers
	$(BIN)/python -m benchmarks.soak

peers: build/localstripe/ready
	@sh tests/peers.sh
	@sh tests/npm.sh
	@$(MAKE) --no-print-directory build/phone/jssip.js

build/phone/jssip.js: deploy/phone.py
	$(PYTHON) deploy/phone.py $@

build/localstripe/ready: tests/localstripe.txt
	$(PYTHON) -m venv build/localstripe
	build/localstripe/bin/pip install --quiet --require-hashes -r tests/localstripe.txt
	@touch $@

$(READY): constraints.txt pyproject.toml setup.py $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flattone needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r constraints.txt
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info dsp/*.so mediaproxy/media/*.so flattone-demo .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
