"""The whole cloud: its parts put together, started, stopped, and taken up again after a restart."""

import fcntl
import logging
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from wavelift.localcloud.disks import DiskFiles
from wavelift.localcloud.engine import Engine
from wavelift.localcloud.entities import HOST_IMAGE, Disk, Image, Instance, Job, Snapshot
from wavelift.localcloud.locks import KeyedLocks
from wavelift.localcloud.model.attributes import Attributes
from wavelift.localcloud.model.commands import Commands
from wavelift.localcloud.model.context import Context, Options
from wavelift.localcloud.model.conversion import Converter
from wavelift.localcloud.model.disk_changes import DiskChanges
from wavelift.localcloud.model.disks import Disks
from wavelift.localcloud.model.exports import Exports
from wavelift.localcloud.model.image_changes import ImageChanges
from wavelift.localcloud.model.images import Images
from wavelift.localcloud.model.imports import Imports
from wavelift.localcloud.model.instances import Instances
from wavelift.localcloud.model.network import Network
from wavelift.localcloud.model.screens import Screens
from wavelift.localcloud.model.sizes import to_bytes
from wavelift.localcloud.model.snapshots import Snapshots
from wavelift.localcloud.model.tags import Tags
from wavelift.localcloud.model.tasks import Tasks
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.room import Room
from wavelift.localcloud.runtimes.base import Folders
from wavelift.localcloud.runtimes.hosts import Hosts
from wavelift.localcloud.runtimes.machines import Machines
from wavelift.localcloud.runtimes.processes import Children
from wavelift.localcloud.states import ImageStatus
from wavelift.localcloud.store import Store, Transaction
from wavelift.localcloud.volume import Volume

LOG = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
LOCK = "lock"


class StateInUse(Exception):
    def __init__(self, state: Path) -> None:
        super().__init__(f"another local cloud runs on {state}")
        self.state = state


class SharedFolder(Exception):
    """The state would lie open to others, and the folder is not one to be closed."""

    def __init__(self, state: Path, reason: str) -> None:
        super().__init__(f"{state} {reason}; name a folder of your own for the state, a new or an empty one")
        self.state = state


def private(state: Path) -> Path:
    """Made if need be, and closed to others: who reads the seal in it can make keys. Raises SharedFolder."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = state.resolve()
    status = state.stat()
    if status.st_uid != os.getuid():
        raise SharedFolder(state, "belongs to somebody else")
    if status.st_mode & 0o077:
        # Not /tmp, nor a home: others may have business there.
        if not (state / LOCK).exists() and any(state.iterdir()):
            raise SharedFolder(state, "is open to others and holds other things")
        state.chmod(0o700)
    return state


class Cloud:
    def __init__(self, state: Path, options: Options) -> None:
        state = private(state)
        self._claim = (state / LOCK).open("w")
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._claim.close()
            raise StateInUse(state) from None
        self.options = options
        self.room = Room(state)
        with ExitStack() as opened:
            opened.callback(self._claim.close)
            self._volume = Volume(state)
            opened.callback(self._volume.close)
            self.store = Store(state / "state.sqlite")
            opened.callback(self.store.close)
            self._volume.open()
            self.objects = ObjectStore(state / "oss")
            opened.callback(self.objects.close)
            self._children = Children(state)
            self.files, self._folders = DiskFiles(state), Folders(state)
            with self.store.transaction() as tx:
                self._sockets = sockets = _sockets(tx)
            opened.pop_all()
        self.engine = Engine(self.store, options.profile)
        self.machines = Machines(self._folders, self.files, self._children, sockets)
        context = Context(
            options=options,
            store=self.store,
            engine=self.engine,
            files=self.files,
            folders=self._folders,
            locks=KeyedLocks(),
            machines=self.machines,
            hosts=Hosts(self._folders, self.files, self._children),
        )
        self.disks = Disks(context)
        self.disk_changes = DiskChanges(context)
        self.snapshots = Snapshots(context)
        self.images = Images(context, self.snapshots)
        self.image_changes = ImageChanges(context, self.images)
        self._converter = Converter()
        self.tasks = Tasks(context, self._converter)
        self.imports = Imports(context, self.images, self.tasks, self.objects, self._converter)
        self.exports = Exports(context, self.tasks, self.objects, self._converter)
        self.tasks.serve({"ImportImage": self.imports, "ExportImage": self.exports})
        self.instances = Instances(context, self.disks)
        self.attributes = Attributes(context, self.disks)
        self.screens = Screens(context)
        self.commands = Commands(context)
        self.network = Network(context)
        self.tags = Tags(context)
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._run_watch, name="localcloud-watch", daemon=True)

    def start(self) -> None:
        try:
            self._begin()
        except BaseException:
            self.stop()
            raise

    def _begin(self) -> None:
        with self.store.transaction() as tx:
            self.network.seed(tx)
            _seed_host_image(tx, self.options.host_instances)
            if tx.setting("network") is None:
                tx.keep("network", str(1 + secrets.randbelow(65535)))
            known = {instance.id for instance in tx.all(Instance)}
        self._children.end_strays(known)
        self.instances.adopt()
        self.snapshots.recover()
        self.images.recover()
        self._sweep()
        self.engine.start()
        self.commands.recover()
        self._watch.start()

    def stop(self) -> None:
        """Stop every instance. Operations under way are not ended: they go on after the next start."""
        self._stopping.set()
        if self._watch.is_alive():
            self._watch.join()
        self.commands.close()
        self.machines.hurry.set()
        self._converter.close()
        self.engine.stop()
        self.machines.hurry.clear()
        self.instances.shut_down(self._children.instances())
        shutil.rmtree(self._sockets, ignore_errors=True)
        self.objects.close()
        self.store.close()
        self._volume.close()
        self._claim.close()

    def _sweep(self) -> None:
        """A kill may come between a change of the store and the files that go with it: the store is right."""
        with self.store.transaction() as tx:
            disks = {disk.id: to_bytes(disk.size) for disk in tx.look(Disk)}
            snapshots = {snapshot.id for snapshot in tx.look(Snapshot)}
            snapshots |= {name for job in tx.look(Job) if job.busy is not None for name in job.results}
            instances = {instance.id for instance in tx.look(Instance)}
        self.files.sweep(disks, snapshots)
        self._folders.sweep(instances)

    def _run_watch(self) -> None:
        while not self._stopping.wait(WATCH_SECONDS):
            self._children.collect()
            try:
                self.room.look()
                self.instances.notice()
            except Exception:
                LOG.exception("could not look after the instances")


def _sockets(tx: Transaction) -> Path:
    """The address of a Unix socket has 108 bytes at most, so they cannot live in a state folder of any depth."""
    known = tx.setting("sockets")
    if known is not None:
        folder = Path(known)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077:
            return folder
    folder = Path(tempfile.mkdtemp(prefix="localcloud-", dir="/tmp"))
    tx.keep("sockets", str(folder))
    return folder


def _seed_host_image(tx: Transaction, allowed: bool) -> None:
    known = tx.get(Image, HOST_IMAGE)
    if allowed and known is None:
        image = Image(id=HOST_IMAGE, created=time.time(), name=HOST_IMAGE, owner="system", platform="Debian")
        image.become(ImageStatus.AVAILABLE)
        tx.put(image)
    elif not allowed and known is not None:
        tx.remove(known)
