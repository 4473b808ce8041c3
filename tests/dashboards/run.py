"""Holds deploy/grafana and deploy/prometheus against a loaded daemon, scraped by a real Prometheus.

Files first: dashboards are what their script writes and of Grafana's schema; promtool finds nothing;
each alert has its runbook and its tests. Then every query of every panel, variable and rule is asked
of Prometheus until it has data. `--pictures DIRECTORY` draws the dashboards from that.
"""

import argparse
import datetime
import importlib.util
import json
import math
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml
from calls import Calls, Client, Misbehaviour, credential
from schema import problems

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRAFANA, PROMETHEUS = ROOT / "deploy/grafana", ROOT / "deploy/prometheus"
DEADLINE = 75
# Of a run of `taciturn load`, in seconds.
LONGEST = 180
# For a healthy daemon on one machine these are nothing, and must be there all the same.
QUIET = {
    "Receive queue drops",
    "Handed to another worker",
    "Clients' addresses in the log",
    "Ports used before their rest",
    "Log and events lost",
    "Drops",
    "Dropped",
    "Alerts firing",
    "Nodes down",
}


def eventually(what, condition, seconds=DEADLINE):
    """What `condition` returns, once that is true."""
    end = time.monotonic() + seconds
    while not (met := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain: {what}")
        time.sleep(0.1)
    return met


def generator():
    spec = importlib.util.spec_from_file_location("dashboards", GRAFANA / "dashboards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- files


def boards():
    """The dashboards as they are committed, by name."""
    written = {f"{board.name}.json": board.text() for board in (one() for one in generator().BOARDS)}
    committed = {path.name: path.read_text(encoding="utf-8") for path in GRAFANA.glob("*.json")}
    assert written.keys() == committed.keys(), f"{written.keys()} are written, {committed.keys()} are there"
    for name, text in committed.items():
        assert text == written[name], f"{name} is not what dashboards.py writes: run it"
        assert not (found := problems(text)), f"{name}: {found}"
    return {name: json.loads(text) for name, text in committed.items()}


def a_fault_is_found(document):
    """So that the comparison with the schema can fail."""
    for spoil in (
        lambda board: board.update(colour="red"),
        lambda board: board.update(title=5),
        lambda board: board["panels"][0]["options"].update(colorMode="loud"),
        lambda board: board["panels"][0]["targets"][0].update(expr=None),
    ):
        spoilt = json.loads(json.dumps(document))
        spoil(spoilt)
        assert problems(json.dumps(spoilt)), "a dashboard that is not of the schema passes for one"


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def every_panel_says_what_it_shows(all_boards):
    uids = [board["uid"] for board in all_boards.values()]
    assert len(set(uids)) == len(uids)
    for name, board in all_boards.items():
        assert board["title"] and board["description"] and "taciturn" in board["tags"]
        names = [variable["name"] for variable in board["templating"]["list"]]
        assert names[:3] == ["datasource", "job", "instance"], names
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        for panel in panels(board):
            told = len(panel.get("description", "")) > 20 and panel["fieldConfig"]["defaults"].get("unit")
            assert panel["title"] and told and panel["targets"], f"{name}: {panel['title']}"
            assert panel["datasource"]["uid"] == "${datasource}"


def rules(kind):
    found = []
    for path in sorted(PROMETHEUS.glob("*rules.yml")):
        groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        found += [rule for group in groups for rule in group["rules"] if kind in rule]
    return found


def promtool(*arguments):
    subprocess.run(["promtool", *arguments], check=True, cwd=PROMETHEUS, stdout=subprocess.DEVNULL)


def every_rule_is_tested_and_every_alert_has_its_runbook():
    names = sorted(path.name for path in PROMETHEUS.glob("*rules.yml"))
    tests = sorted(path.name for path in PROMETHEUS.glob("*.test.yml"))
    assert tests == [name.replace("rules.yml", "rules.test.yml") for name in names]
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", *names)
    promtool("test", "rules", *tests)

    fires, silent, evaluated = set(), set(), set()
    for test in tests:
        for group in yaml.safe_load((PROMETHEUS / test).read_text(encoding="utf-8"))["tests"]:
            for one in group.get("alert_rule_test", []):
                (fires if one["exp_alerts"] else silent).add(one["alertname"])
            evaluated |= {re.findall(r"\w*:[\w:]+", one["expr"])[0] for one in group.get("promql_expr_test", [])}
    alerts = [rule["alert"] for rule in rules("alert")]
    assert len(set(alerts)) == len(alerts)
    assert fires == silent == set(alerts), f"without a test: {set(alerts) ^ fires | set(alerts) ^ silent}"
    assert evaluated == {rule["record"] for rule in rules("record")}, evaluated

    text = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    section = re.search(r"^## Alerts\n(.*?)(?=^## |\Z)", text, re.M | re.S).group(1)
    paragraphs = re.findall(r"^### (\w+)\n\n(.+)", section, re.M)
    assert sorted(name for name, _ in paragraphs) == sorted(alerts), "alerts and runbooks differ"
    for rule in rules("alert"):
        expected = f"docs/observability.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook"] == expected, rule["alert"]
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("warning", "critical")


# --- what runs


class Running:
    """Processes that end with it, in a directory that goes with it."""

    def __init__(self, binary):
        self.binary, self.processes, self.loops = binary, [], []
        self.temporary = tempfile.TemporaryDirectory(prefix="taciturn-dashboards-")
        self.house = pathlib.Path(self.temporary.name)
        self.secret = secrets.token_urlsafe(32)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        for loop in self.loops:
            loop.over.set()
        for loop in self.loops:
            loop.join()
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.temporary.cleanup()

    def spawn(self, name, *command):
        with open(self.house / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def said(self, name):
        return (self.house / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def configuration(self, more=""):
        path = self.house / "taciturn.toml"
        path.touch(0o600)
        path.write_text(
            f"""
{more}
[listen]
udp = ["127.0.0.1:0"]
tls = ["127.0.0.1:0"]
[tls]
cert = ["{self.house}/cert.pem"]
key = ["{self.house}/key.pem"]
[relay]
addresses = ["127.0.0.1"]
ports = "61000-65535"
[auth]
secrets = [{{ id = "first", value = "{self.secret}" }}]
[limits]
user_allocations = 2
prefix_failures = "1/s burst 2"
[workers]
count = 2
streams = 1
[admin]
listen = "127.0.0.1:0"
[control]
socket = "{self.house}/control.sock"
[events]
file = "{self.house}/events.jsonl"
interval = "1s"
[log]
format = "json"
""",
            encoding="utf-8",
        )
        return path

    def daemon(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "60",
             "-subj", "/CN=localhost", "-keyout", f"{self.house}/key.pem", "-out", f"{self.house}/cert.pem"],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.taciturn = self.spawn("taciturn", self.binary, "serve", "--config", str(self.configuration()))

        def ready():
            assert self.taciturn.poll() is None, self.said("taciturn")
            return '"message":"ready"' in self.said("taciturn")

        eventually("the daemon is ready", ready)
        told = [json.loads(line) for line in self.said("taciturn").splitlines() if line.startswith("{")]
        self.listens = {
            one["transport"]: tuple_of(one["address"]) for one in told if one["message"] == "listening"
        }
        self.admin = next(one["address"] for one in told if one["message"] == "admin listens")

    def prometheus(self):
        """With the configuration of deploy/, but for targets and intervals."""
        config = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
        config, targets = re.subn(r"127\.0\.0\.1:9641", self.admin, config)
        config, intervals = re.subn(r"(?<=_interval: )15s", "1s", config)
        assert (targets, intervals) == (2, 2)
        config = config.replace('"*rules.yml"', f'"{PROMETHEUS}/*rules.yml"')
        (self.house / "prometheus.yml").write_text(config, encoding="utf-8")
        for attempt in range(5):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            name = f"prometheus-{attempt}"
            process = self.spawn(
                name, "prometheus", f"--config.file={self.house}/prometheus.yml",
                f"--storage.tsdb.path={self.house}/{name}", f"--web.listen-address=127.0.0.1:{port}",
            )  # fmt: skip
            self.api = f"http://127.0.0.1:{port}"

            def ready(process=process):
                if process.poll() is not None:
                    return "ended"
                try:
                    with urllib.request.urlopen(f"{self.api}/-/ready", timeout=5) as answer:
                        return answer.status == 200
                except (urllib.error.URLError, OSError):
                    return False

            if eventually("Prometheus is ready", ready) is True:
                return
        raise SystemExit(self.said(name))

    def ask(self, path, **parameters):
        url = f"{self.api}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            with urllib.request.urlopen(url, timeout=15) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{parameters}: {error.read().decode()}") from error

    def control(self, *arguments):
        command = [self.binary, *arguments, "--socket", f"{self.house}/control.sock"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def load(self):
        secret = self.house / "secret"
        secret.touch(0o600)
        secret.write_text(self.secret, encoding="utf-8")
        (udp, tls) = (":".join(map(str, self.listens[one])) for one in ("udp", "tls"))
        self.generator = self.spawn(
            "load", self.binary, "load", "--server", udp, "--callee-transport", "tls", "--callee-server", tls,
            "--secret-file", str(secret), "--payload", "call", "--pairs", "4", "--duration", f"{LONGEST}s",
            "--no-ceiling", "--sources", "127.0.6.0/24",
        )  # fmt: skip
        for loop in (
            Calls(self.listens["udp"], self.secret, 4),
            Misbehaviour(self.listens["udp"], self.listens["tls"], self.secret),
        ):
            loop.start()
            self.loops.append(loop)

    def reload(self, more, outcome):
        def count():
            with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=15) as page:
                text = page.read().decode()
            return int(re.search(rf'^taciturn_reloads_total{{outcome="{outcome}"}} (\d+)$', text, re.M).group(1))

        before = count()
        self.configuration(more)
        self.taciturn.send_signal(signal.SIGHUP)
        eventually(f"a configuration is {outcome}", lambda: count() > before)

    def take_back(self, turn):
        """A revocation, a ban, and configurations that are refused and applied, between two scrapes."""
        twice = "min(count_over_time(taciturn_build_info[1m])) > 1"
        eventually("Prometheus has scraped twice", lambda: self.ask("query", query=twice)["result"])
        for name, verb in (("carol", ["revoke", "--user"]), ("dave", ["ban", "--ttl", "1h", "--user"])):
            user = f"{name}-{turn}"
            login = credential(self.secret, user)
            client = Client(self.listens["udp"], *login, "127.0.7.1")
            assert client.allocate()
            self.control(*verb, user)
            again = Client(self.listens["udp"], *login, "127.0.7.2")
            assert not again.allocate(), f"{user} got in again"
            client.socket.close()
            again.socket.close()
        self.reload("no_such_key = 1", "refused")
        self.reload(f"[metrics]\nallocations = {500 + turn}", "applied")

    def lives(self):
        assert self.taciturn.poll() is None, self.said("taciturn")
        assert self.generator.poll() is None, self.said("load")
        for loop in self.loops:
            if not loop.is_alive():
                raise loop.error


def tuple_of(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


# --- what is asked


def substituted(expr, values):
    values = {"__rate_interval": "15s", "__range": "2m", **values}
    return re.sub(r"\$(\w+)", lambda found: values[found.group(1)], expr)


def numbers(result):
    """Of each series its numbers, whether there is one value of it or many."""
    series = [one.get("values") or [one["value"]] for one in result]
    return [[float(value) for _, value in one if not math.isnan(float(value))] for one in series]


def chosen(running, board):
    """A value for each variable of a dashboard, as Grafana would offer it first."""
    values = {}
    for variable in board["templating"]["list"]:
        if variable["type"] != "query":
            continue
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        parameters = {"match[]": substituted(match.group(1), values)}
        offered = running.ask(f"label/{match.group(2)}/values", **parameters)
        if variable["name"] == "allocation":
            offered = carries_media(running, offered)
        if not offered:
            return None
        values[variable["name"]] = offered[0]
    return values


def carries_media(running, offered):
    """Those of the calls, whose links break off now and then, before those of the load, which is no RTP."""
    gaps = "sort_desc(sum by (allocation) (taciturn_allocation_media_gap_seconds_total)) > 0"
    busy = [one["metric"]["allocation"] for one in running.ask("query", query=gaps)["result"]]
    return [one for one in busy if one in offered]


def answer(running, target, values, seconds):
    expr = substituted(target["expr"], values)
    if target["instant"]:
        return running.ask("query", query=expr)["result"]
    now = time.time()
    return running.ask("query_range", query=expr, start=now - seconds, end=now, step=1)["result"]


def without_data(running, all_boards, seconds):
    """What has no data yet, or none but zeroes where the load should have made some."""
    missing = []
    for name, board in all_boards.items():
        values = chosen(running, board)
        if values is None:
            missing.append(f"{name}: a variable has no value")
            continue
        for panel in panels(board):
            for target in panel["targets"]:
                said = f"{name}: {panel['title']}: {substituted(target['expr'], values)}"
                found = numbers(answer(running, target, values, seconds))
                if not any(found):
                    missing.append(said)
                elif panel["title"] not in QUIET and not any(map(any, found)):
                    missing.append(f"{said}: nothing but zeroes")
    return missing


COMPARISON = re.compile(r'("[^"]*"|\{[^}]*\})|(==|!=|<=|>=|<|>)')


def compared(expr):
    """With `bool` an alert's comparisons tell of all that they compare, not just of what is too much."""
    return COMPARISON.sub(lambda found: found.group(1) or f"{found.group(2)} bool", expr)


def rules_without_data(running):
    missing = []
    for rule in rules("record"):
        for expr in (rule["expr"], rule["record"]):
            if not any(numbers(running.ask("query", query=expr)["result"])):
                missing.append(expr)
    for rule in rules("alert"):
        expr = compared(rule["expr"])
        assert "bool" in expr
        if not any(numbers(running.ask("query", query=expr)["result"])):
            missing.append(f"{rule['alert']}: {expr}")
    for group in running.ask("rules")["groups"]:
        missing += [f"{rule['name']}: {rule['lastError']}" for rule in group["rules"] if rule["health"] == "err"]
        missing += [f"{rule['name']} has not run" for rule in group["rules"] if rule["health"] == "unknown"]
    return missing


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--pictures", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=120, help="of load before it is drawn, at most 150")
    options = parser.parse_args()
    # What was started ends also when this is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    all_boards = boards()
    a_fault_is_found(all_boards["fleet.json"])
    every_panel_says_what_it_shows(all_boards)
    every_rule_is_tested_and_every_alert_has_its_runbook()

    began = time.monotonic()
    with Running(options.binary) as running:
        running.daemon()
        running.prometheus()
        running.load()
        running.take_back(0)

        def everything():
            running.lives()
            since = time.monotonic() - began
            missing = without_data(running, all_boards, since) + rules_without_data(running)
            everything.missing = missing
            return not missing

        try:
            eventually("every query has data", everything)
        except SystemExit:
            print(*everything.missing, running.said("load")[-2000:], sep="\n", file=sys.stderr)
            raise
        if options.pictures:
            from pictures import draw

            turn = 1
            while time.monotonic() - began < options.seconds:
                running.lives()
                running.take_back(turn)
                turn += 1
                time.sleep(20)
            for name, board in all_boards.items():
                values = chosen(running, board)
                ask = lambda target: answer(running, target, values, options.seconds)  # noqa: E731, B023
                draw(board, values, ask, options.pictures / name.replace(".json", ".png"))
        for loop in running.loops:
            loop.stop()
    queries = sum(len(panel["targets"]) for board in all_boards.values() for panel in panels(board))
    print(
        f"dashboards: {len(all_boards)} with {queries} queries, {len(rules('record'))} recording rules and"
        f" {len(rules('alert'))} alerts have data ({time.monotonic() - began:.0f} s)"
    )


if __name__ == "__main__":
    main()
