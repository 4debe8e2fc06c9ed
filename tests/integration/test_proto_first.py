"""A contract that begins as `.proto` files: imported by the command, checked by both checkers, served, called with curl, heard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorProto, FileDescriptorSet

from linkspan.cli.contract_target import load_contracts
from linkspan.contracts.export import exported
from linkspan.contracts.proto_first import imported
from linkspan.errors import SetupError
from linkspan.rules import schema

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BIN = str(Path(sys.executable).parent)
for tool in ("buf", "protoc-gen-py"):
    if shutil.which(tool) is None and shutil.which(tool, path=BIN) is None:
        pytest.skip(f"not run: {tool} is not installed (pip install linkspan[protofirst])", allow_module_level=True)

ENVIRONMENT = {"PYTHONPATH": str(ROOT / "src"), "LINKSPAN_HTTP": "127.0.0.1:0", "PATH": f"{BIN}:/usr/bin:/bin", "HOME": "/nonexistent"}
WRONG = """

@market.handles(OrderService.get_order)  # wrong
async def other_answer(ctx: Context, request: GetOrderRequest) -> Money: ...
@market.handles(OrderService.get_order)  # wrong
async def other_request(ctx: Context, request: PlaceOrderRequest) -> Order: ...
@market.handles(OrderService.watch_urls)  # wrong
async def no_stream(ctx: Context, request: GetOrderRequest) -> Order: ...
@mail.on(OrderService.order_placed)  # wrong
async def other_event(ctx: Context, event: Order) -> None: ...
OrderService.nowhere  # wrong


async def calls(ctx: Context) -> None:
    await ctx.call(OrderService.get_order, PlaceOrderRequest())  # wrong
    await ctx.call(OrderService.get_ordre, GetOrderRequest())  # wrong
    await ctx.send(OrderService.get_order, GetOrderRequest())  # wrong
    await ctx.publish(OrderService.order_placed, Order())  # wrong
    money: Money = await ctx.call(OrderService.get_order, GetOrderRequest())  # wrong
    right: Money = await ctx.call(OrderService.get_rate, GetRateRequest())
    print(money, right)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the imported contract and an app on it."""
    made = tmp_path_factory.mktemp("market")
    command = [sys.executable, "-m", "linkspan.cli", "contracts", "import", str(HERE / "protos"), "--out", "market_gen"]
    done = subprocess.run(command, cwd=made, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    shutil.copy(HERE / "market_app.py", made)
    (made / "wrong.py").write_text((HERE / "market_app.py").read_text(encoding="utf-8") + WRONG, encoding="utf-8")
    return made


def lines_by_mypy(folder: Path, file: str) -> set[int]:
    options = [
        "--strict",
        "--python-version",
        "3.11",
        "--output",
        "json",
        "--config-file",
        "/dev/null",
        "--cache-dir",
        str(folder / "cache"),
    ]
    command = [sys.executable, "-m", "mypy", *options, file]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["line"] for row in rows if row["severity"] == "error"}


def lines_by_pyright(folder: Path, file: str) -> set[int]:
    settings = {
        "include": [file],
        "extraPaths": [str(ROOT / "src")],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "reportUnusedFunction": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "-p", str(folder), "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    rows = json.loads(done.stdout)["generalDiagnostics"]
    return {row["range"]["start"]["line"] + 1 for row in rows if row["severity"] == "error"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("find", [lines_by_mypy, lines_by_pyright])
def test_checkers_flag_wrong_use_only(folder: Path, find: Any) -> None:
    assert find(folder, "market_app.py") == set()
    assert find(folder, "market_gen/market/orders/v1/orders.py") == set()
    text = (folder / "wrong.py").read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(text, 1) if line.endswith("# wrong")}
    found = find(folder, "wrong.py")
    assert {number for number in wrong if not {number, number + 1} & found} == set()
    assert {number for number in found if not {number, number - 1} & wrong} == set()


def test_app_on_an_imported_contract_answers_curl_and_hears_its_event(folder: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("not run: curl is not installed")
    command = [sys.executable, "-m", "linkspan.cli", "run", "market_app:app"]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        try:
            address = next(found[1] for line in app.stdout if (found := re.match(r"Ready: market, mail at (\S+)", line)))

            def ask(path: str, *words: str) -> Any:
                url = f"{address}{path}"
                return json.loads(subprocess.run([curl, "-s", *words, url], capture_output=True, timeout=30, check=True).stdout)

            def post(name: str, body: dict[str, Any]) -> Any:
                return ask(f"/market.orders.v1.OrderService/{name}", "-d", json.dumps(body), "-H", "content-type: application/json")

            assert post("PlaceOrder", {"orderId": "7"}) == {"orderId": "7", "status": "STATUS_PLACED"}
            assert ask("/v1/orders/9") == {"orderId": "9"}
            assert post("PlaceOrder", {"customer": "Ada"})["code"] == "invalid_argument"
            assert next(line for line in app.stdout if line.startswith("thanked")) == "thanked 7 PLACED\n"
        finally:
            app.terminate()
            app.wait(30)


def test_export_gives_the_imported_files_back(folder: Path) -> None:
    def run(*words: str) -> bytes:
        done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def descriptors(source: str) -> dict[str, FileDescriptorProto]:
        built = run("buf", "build", source, "--as-file-descriptor-set", "--exclude-source-info", "-o", "-")
        return {file.name: file for file in FileDescriptorSet.from_binary(built).file}

    module = "market_gen.market.orders.v1.orders"
    run(
        sys.executable,
        "-m",
        "linkspan.cli",
        "contracts",
        "export",
        module,
        "--out",
        "back",
        "--format",
        "proto,openapi,asyncapi,json-schema",
    )
    run("buf", "lint", "back")
    run("buf", "format", "-d", "--exit-code", "back")
    (folder / "given").mkdir()
    shutil.copytree(HERE / "protos", folder / "given", dirs_exist_ok=True)
    for known in ("linkspan", "google", "buf"):
        shutil.copytree(folder / "back" / known, folder / "given" / known)
    given, back = descriptors("given"), descriptors("back")
    assert set(given) == set(back)
    assert [name for name in given if given[name] != back[name]] == []
    text = (folder / "back/market/orders/v1/orders.proto").read_text(encoding="utf-8")
    assert "// It was placed.\nmessage OrderPlaced {" in text
    assert "  // One order.\n  rpc GetOrder" in text
    rules = schema().desc().proto  # printed by us, built by buf: the very rules that protovalidate has
    assert FileDescriptorProto.from_binary(rules.to_binary()) == back["buf/validate/validate.proto"]


def test_exported_contracts_come_back_as_they_were(tmp_path: Path) -> None:
    contracts, _ = load_contracts("examples.shop.contracts")
    for path, text in exported(contracts, ["proto"]).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(str(text), encoding="utf-8")
    modules, made = imported(tmp_path)
    assert set(made) == {f"shop/{name}/v1/{name}.py" for name in ("inventory", "orders", "payments", "shipping", "storefront")}
    for line in (
        'accept_order = command(AcceptOrder, OrderRef, answer="later")',
        "get_order = query(GetOrder, Order)",
        'order_settled = event(OrderSettled)\n    """The customer has paid; the goods may go out."""',
    ):
        assert f"    {line}\n" in modules["shop/orders/v1/orders.py"]


def test_service_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a/v1").mkdir(parents=True)
    head = 'syntax = "proto3";\npackage a.v1;\n'
    (tmp_path / "a/v1/a.proto").write_text(f"{head}message A {{ string x = 1; }}\nmessage Contract {{ A event = 1; }}")
    service = "service Things { rpc Contract(a.v1.Contract) returns (A); rpc ContractOf(A) returns (A); }"
    (tmp_path / "a/v1/things.proto").write_text(f'{head}import "a/v1/a.proto";\n{service}')
    modules, (path,) = imported(tmp_path)
    assert "    contract_ = command(ContractMessage, A)\n" in modules[path]
    for name, text in modules.items():
        (tmp_path / "made_apart" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made_apart" / name).write_text(text)
    command = [sys.executable, "-m", "linkspan.cli", "contracts", "export", "made_apart.a.v1.a", "--out", "back"]
    subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=60, check=True)
    assert "  rpc ContractOf(A) returns (A);\n" in (tmp_path / "back/a/v1/things.proto").read_text(encoding="utf-8")
    wrong = modules[path].replace("contract_of = command(A, A)", "contract_of = command(ContractMessage, A)")
    (tmp_path / "made_apart" / path).write_text(wrong)
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert "has other types than its .proto file: write 'a.v1.A' and 'a.v1.A'" in done.stderr


# --- files that cannot be imported


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            'syntax = "proto3";\npackage a.v1;\nmessage A {',
            "buf refuses the files: correct them.\na.proto:3:11:encountered unmatched `{` delimiter",
        ),
        ('syntax = "proto3";\npackage a.v1;\nimport "b/c.proto";', "a.proto:3:1:imported file does not exist"),
        ('syntax = "proto3";\npackage a.v1;\nmessage A {}', "has no service and no event: declare one, or mark messages with option"),
        ('syntax = "proto3";\nmessage A {}', "File 'a.proto' has no package: write one"),
        ('syntax = "proto3";\npackage Big.v1;\nmessage A {}', "Package 'Big.v1' of 'a.proto' cannot be a contract: write lower-case"),
        (None, "There is no .proto file"),
    ],
)
def test_files_that_cannot_be_imported_are_told(text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "a.proto").write_text(text)
    with pytest.raises(SetupError, match=re.escape(sentence)):
        imported(tmp_path / "a.proto")


def test_file_is_found_by_the_folders_of_its_package() -> None:
    modules, contracts = imported(HERE / "protos/market/orders/v1/orders.proto")
    assert contracts == ["market/orders/v1/orders.py"]
    assert "market/money/v1/money_pb.py" in modules
