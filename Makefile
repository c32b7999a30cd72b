# One word each: make demo, make test, make check, make docs.
.PHONY: demo test check slow bench docs clean

demo:            ## set up and run the main job: LeNet-5 on scanned digits, on the default chip
	@scripts/setup
	@.venv/bin/crossloom demo

test:            ## set up and run the tests
	@scripts/setup dev
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 .venv/bin/python -m pytest -n 2 --dist worksteal -q

check:           ## style, types and the quick tests, in seconds
	@scripts/setup dev
	@.venv/bin/ruff check src tests benchmarks examples
	@.venv/bin/mypy
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q tests/weave tests/nn tests/mapping

slow:            ## paper-scale and minutes-long tests (set CROSSLOOM_DATA and CROSSLOOM_WEIGHTS for the real data)
	@scripts/setup dev
	@.venv/bin/python -m pytest -q -m slow

bench:           ## ratios against an fp32 forward pass, measured in one run
	@scripts/setup dev
	@.venv/bin/python -m pytest -q benchmarks --benchmark-only --benchmark-columns=min,median,rounds

docs:            ## build the documentation into site/
	@scripts/setup dev
	@.venv/bin/mkdocs build --strict --quiet

clean:
	rm -rf .venv site runs
