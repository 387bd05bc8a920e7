# Two commands do everything: `make search` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: search test check docs dist clean

search: $(READY)
	$(BIN)/automl search --budget 2k-params $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A release: wheel and sdist, the wheel twice to see that the same bytes come out; what it installs, as a CycloneDX bill of
# materials of an environment of its own; the hashes of all files.
DIST ?= dist
dist: $(READY)
	rm -rf "$(DIST)" build/dist build/env
	$(BIN)/python -m build --outdir "$(DIST)" . >/dev/null
	$(BIN)/python -m build --wheel --outdir build/dist . >/dev/null
	cmp "$(DIST)"/*.whl build/dist/*.whl
	$(PYTHON) -m venv build/env
	build/env/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$(DIST)"/*.whl
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt cyclonedx-bom
	$(BIN)/cyclonedx-py environment build/env/bin/python --pyproject pyproject.toml --output-reproducible -o "$(DIST)/sbom.cdx.json"
	cd "$(DIST)" && sha256sum * >SHA256SUMS

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv dist build
