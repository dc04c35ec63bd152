"""Where ``cache_dir`` points: this machine's folder, a network file system, a server."""

from __future__ import annotations

import socket

import pytest

from lightning_sd.critique.cache import location
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.client import TOKEN_VARIABLE, RemoteCritiqueCache
from lightning_sd.critique.cache.location import open_cache


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    file = tmp_path / "mounts"
    monkeypatch.setattr(location, "MOUNTS", file)
    return file


def test_node_is_the_name_of_the_machine(tmp_path):
    cache = open_cache(f"{tmp_path}/{{node}}/critiques")
    assert cache.path == tmp_path / socket.gethostname() / "critiques" / "critiques.sqlite"


def test_a_network_file_system_is_named_with_a_remedy(tmp_path, mounts):
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/home {tmp_path} nfs4 rw 0 0\n")
    with pytest.warns(UserWarning, match=r"network file system \(nfs4\).*critique serve"):
        open_cache(str(tmp_path / "critiques"))


@pytest.mark.filterwarnings("error")
def test_a_local_disk_below_a_network_one_is_fine(tmp_path, mounts):
    mounts.write_text(f"server:/ / nfs rw 0 0\n/dev/sda {tmp_path} xfs rw 0 0\n")
    assert isinstance(open_cache(str(tmp_path / "critiques")), CritiqueCache)


def test_an_address_is_a_server(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert isinstance(open_cache("http://node1:8765"), RemoteCritiqueCache)
