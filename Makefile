# `make demo` and `make test` set everything up by themselves.
PYTHON := .venv/bin/python
READY  := .venv/.ready

.PHONY: demo up down test test-slow test-routes test-os-matrix lint setup clean agent-bundle api

demo: $(READY)            ## run the main job: migrate the demo machine onto the local cloud and boot it
	$(PYTHON) -m demo run $(if $(ROUTE),--route "$(ROUTE)")

up: $(READY)              ## start everything and leave it running
	$(PYTHON) -m demo up

down: $(READY)            ## stop what `make up` started
	$(PYTHON) -m demo down

test: $(READY) lint       ## linters, types, import rules and the everyday suite
	$(PYTHON) -m pytest -n 2 --no-loadscope-reorder

test-slow: $(READY)       ## what takes minutes more: machines that fail to boot, LVM inside a machine, kills, a live guest
	$(PYTHON) -m pytest -m slow

test-routes: $(READY)     ## the demo's machine by every route, with the same root at the end of each; and on a donor
	$(PYTHON) -m pytest -m routes

test-os-matrix: $(READY)  ## every system, layout and boot loader that is prepared: built, moved and booted; writes docs/os-matrix.md
	$(PYTHON) -m pytest -m matrix -n 2 --no-loadscope-reorder tests/guest
	$(PYTHON) -m tests.guest.osmatrix.table > docs/os-matrix.md

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

agent-bundle: $(READY)    ## build/wavelift-agent-VERSION-x86_64.run: installs the agent on a source host, offline
	$(PYTHON) packaging/agent/build.py build

setup: $(READY)

$(READY): requirements.txt requirements-dev.txt constraints.txt pyproject.toml scripts/packages.sh
	scripts/packages.sh
	/usr/bin/python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt wheel
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

api: $(READY)             ## docs/api/*.json from the services themselves
	$(PYTHON) scripts/api_documents.py

clean:                    ## remove every trace: running processes, virtual environment, built machines
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m demo down; fi
	rm -rf .venv .wavelift build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
