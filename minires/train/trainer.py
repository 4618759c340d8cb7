"""The training loop, and a folder from which a run goes on bit for bit.

Read `Trainer.run`, then what it calls; `Keeper` writes the files.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from .. import ahead
from ..data import prefetch
from ..errors import DataError, NonFiniteError, PictureError
from .config import TrainConfig
from .dead import dead_relus
from .evaluate import evaluate
from .finetune import Freezing, load_init, with_network_of_init
from .folder import RunFolder
from .keeper import Keeper
from .lookahead import Lookahead
from .metrics import Position, Tally, Verdict, epoch_record, score_of
from .sets import Sets, class_weights, load_sets
from .setup import choose_device, make_model, make_step, resumed_config, set_threads
from .watch import (
    Interrupted,
    StopFlag,
    Watch,
    catch_signals,
    describe,
    introduction,
    skipped_lines,
)

__all__ = ["Trainer", "train"]

WHITEN_BY = 5000 * 32 * 32  # pixels of training images
DEAD_BY = 500  # images, of the validation if there is one


class Trainer:
    """One training run, and the folder that it fills.

    `out` is the run folder (else runs/<model>-<time>); `sets` replaces the data that `config`
    names. Raises ConfigError, DataError or OSError before anything is computed when the run cannot
    work.

    >>> trainer = Trainer(TrainConfig(dataset="shapes"), "runs/mine")  # doctest: +SKIP
    >>> trainer.run()["test_accuracy"]  # doctest: +SKIP
    0.99
    """

    def __init__(
        self,
        config: TrainConfig,
        out: str | Path | None = None,
        *,
        sets: Sets | None = None,
        watch: Watch | None = None,
    ) -> None:
        config = with_network_of_init(config).resolved()
        folder = RunFolder.new(out, str(config.model))
        try:
            self._prepare(config, folder, sets, watch)
            self._begin()
        except BaseException:
            folder.discard()
            raise
        folder.write_config(config, self.device)

    @classmethod
    def resume(
        cls,
        out: str | Path,
        *,
        sets: Sets | None = None,
        watch: Watch | None = None,
        **changes: Any,
    ) -> Trainer:
        """Go on with the run in `out`; only `setup.MOVABLE` options may differ from its config.

        Raises ConfigError for another change, DataError when there is nothing whole to go on from.
        """
        folder = RunFolder.existing(out)
        trainer = cls.__new__(cls)
        trainer._prepare(resumed_config(folder.config, changes), folder, sets, watch)
        at = trainer.keeper.restore()
        if at is None:
            trainer.watch.say(f"{out}: no checkpoint yet, starting from the first epoch")
            trainer._begin()
        else:
            trainer.position = at
        return trainer

    def _prepare(
        self, config: TrainConfig, folder: RunFolder, sets: Sets | None, watch: Watch | None
    ) -> None:
        self.config, self.folder, self.watch = config, folder, watch or Watch()
        self._counted = time.process_time() + ahead.cpu_seconds()  # that the position knows of
        self.device = choose_device(config.device)
        set_threads(config.threads)
        self.sets = sets or load_sets(config)
        self.card = self.sets.card(config)
        self.loader = self.sets.train_loader(config)
        self.epochs = int(config.epochs or 0)
        self.model = make_model(config, len(self.card.classes), self.device)
        self.freezing = Freezing(
            self.model, config.freeze, config.unfreeze_every, statistics=config.freeze_bn
        )
        weights = class_weights(config, self.sets)
        steps = self.epochs * len(self.loader)
        self.step = make_step(config, self.model, steps, weights, self.device)
        self.lookahead = (
            Lookahead(self.model, config.lookahead, steps) if config.lookahead else None
        )
        images = len(self.sets.train)
        self.keeper = Keeper(
            *(folder, self.step, self.card, images, self.watch),
            lookahead=self.lookahead,
            save_every=config.save_every,
            tensorboard=config.tensorboard,
        )
        self.position = Position()

    def _begin(self) -> None:
        """What a run does before its first step, and a resumed one does not."""
        found = load_init(self.model, self.config)
        if found is not None:
            self.watch.say(found)
        elif self.config.whiten:
            self.model.whiten(self.sets.normalised(max(1, WHITEN_BY // self.sets.size**2)))
        if self.lookahead is not None:
            self.lookahead.begin()

    # The loop

    def run(self, stop_after_epoch: int | None = None) -> dict[str, Any]:
        """Train to the end, or to the end of an epoch, and return the summary.

        SIGINT and SIGTERM save and raise Interrupted. Raises NonFiniteError for a NaN or infinite
        loss or gradient, DataError when the folder can no longer be written, PictureError when a
        picture cannot be read and that means to stop; the weights of the last good step stay in
        the folder.
        """
        self.keeper.begin(self.position)
        what = self.config, self.model, self.sets, self.device
        self.watch.say(f"{introduction(*what)}; {self.folder.path}")
        self._tell_news()
        until = self.epochs if stop_after_epoch is None else min(stop_after_epoch, self.epochs)
        try:
            self._run_until(until)
        except PictureError:
            raise
        except (OSError, DataError) as error:  # a full disk, lost permission
            kept = f"its newest checkpoint is whole: minires train --resume {self.folder.path}"
            raise DataError(f"cannot save the run: {error}; {kept}") from error
        finally:
            self.sets.close()
            self.keeper.close_events()
        for line in skipped_lines(self.sets.skipped, self.folder.skipped):
            self.watch.say(line)
        return self.summary()

    def _run_until(self, until: int) -> None:
        with catch_signals() as stop:
            try:
                while not self.position.finished and self.position.epoch < until:
                    self._train_epoch(stop)
                    self._finish_epoch(stop)
            except Interrupted:
                self.keeper.save_weights(self.position)
                self.keeper.checkpoint(self.position)
                self.keeper.add_skipped(self.sets.skipped)
                self.keeper.draw(self.position, force=True)
                raise
            self.keeper.draw(self.position, force=True)

    def _train_epoch(self, stop: StopFlag) -> None:
        at = self.position
        self.freezing.train(at.epoch)
        self.loader.set_epoch(at.epoch, start_batch=at.batch)
        title, clock = f"epoch {at.epoch + 1}/{self.epochs}", time.perf_counter()
        self.step.begin(at.tally, at.norms)
        looked = clock
        self._decoding = self.sets.cpu_seconds()
        self._count_cpu()  # what saving the epoch before took
        with self.watch.bar(title, len(self.sets.train), at.tally.total) as bar:
            for x, target in prefetch(self.loader, self.device):
                self._learn(x, target)
                now = time.perf_counter()
                at.seconds, clock = at.seconds + now - clock, now
                at.train_cpu_seconds += self._count_cpu()
                if self.device == "cpu" or now - looked > self.watch.every:
                    self._look()
                    looked = now
                    bar.set_postfix(loss=f"{at.tally.loss:.3f}", refresh=False)
                bar.update(len(target))
                self._heed(stop)
                self.keeper.checkpoint_now_and_then(at, self._look)
        self._look()

    def _learn(self, x: Any, target: Any) -> None:
        at = self.position
        try:
            result = self.step(x, target)
        except NonFiniteError as error:
            raise self._spoilt(error) from None
        at.batch, at.step, at.rate = at.batch + 1, at.step + 1, result.rate
        if result.norm is None:  # the GPU adds up
            at.tally.total += len(target)
        else:
            assert result.loss is not None
            assert result.correct is not None
            at.tally.add(result.loss, result.correct, len(target))
            at.norms += result.norm
        if self.lookahead is not None:
            self.lookahead.after_step(at.step)

    def _look(self) -> None:
        """Bring the epoch's sums up to date, where a GPU has them, and see that all is well."""
        at = self.position
        if (found := self.step.read(at.tally)) is None:
            return
        at.norms = found.norms
        if lost := found.lost:
            at.batch, at.step = at.batch - lost, at.step - lost
            raise self._spoilt(self.step.blame())

    def _spoilt(self, error: NonFiniteError) -> NonFiniteError:
        """The error for the user, once the weights before it are in the folder."""
        at = self.position
        self.keeper.save_weights(at)
        kept = f"the weights after step {at.step} are in {self.folder.last}"
        remedy = "a smaller --lr, or --clip-norm 1, may help"
        text = f"step {at.step + 1}: {error}; {kept}; {remedy}"
        return NonFiniteError(text, error.op, at.step + 1)

    def _finish_epoch(self, stop: StopFlag) -> None:
        at, config = self.position, self.config
        decoding = self.sets.decode_share(self._decoding)
        val = None if self.sets.val is None else self._measure("validation", self.sets.val, stop)
        score = score_of(at.tally, val, by_loss=config.early_stopping is not None)
        found = at.judge(score, self.epochs, config.early_stopping)
        test = seen = None
        if found.last:
            with self.keeper.best_weights() if found.goes_back else nullcontext():
                test = self._measure("test", self.sets.test, stop)
                if config.test_views != "none":
                    seen = self._measure("test", self.sets.test, stop, config.test_views)
        norm = at.norms / at.batch
        record = epoch_record(at.epoch + 1, at.step, at.rate, at.tally, val, test, seen, norm)
        if config.dead_relus:
            some = self.sets.eval_loader((self.sets.val or self.sets.train)[:DEAD_BY])
            record["dead_relus"] = dead_relus(self.model, some, self.device)
        self._count_cpu()
        timing = at.timing() | decoding
        at.end_epoch(record, timing, score, found)
        self._save_epoch(record, timing, found)
        self._tell_news()
        self.watch.say(describe(record, self.epochs, timing["img_per_s"], timing["seconds"]))

    def _save_epoch(self, record: dict[str, Any], timing: dict[str, Any], found: Verdict) -> None:
        at = self.position
        if found.better:
            self.keeper.save_weights(at, best=True)
        if not found.goes_back:
            self.keeper.save_weights(at)
        self.keeper.checkpoint(at)
        self.keeper.add_lines(record, timing)
        self.keeper.add_skipped(self.sets.skipped)
        self.keeper.draw(at)

    def _count_cpu(self) -> float:
        """Add this process's CPU seconds, and those of decoding, to the position; return them."""
        total = self.sets.cpu_seconds()[1]
        spent, self._counted = total - self._counted, total
        self.position.cpu_seconds += spent
        return spent

    def _tell_news(self) -> None:
        for line in self.sets.news():
            self.watch.say(line)

    def _measure(self, name: str, dataset: Any, stop: StopFlag, views: str = "none") -> Tally:
        with self.watch.bar(name, len(dataset)) as bar:

            def after_batch(count: int) -> None:
                bar.update(count)
                self._heed(stop)

            batches = self.sets.eval_loader(dataset)
            return evaluate(self.model, batches, self.device, after_batch, views=views)

    def _heed(self, stop: StopFlag) -> None:
        """Raise Interrupted when a signal has come; `run` saves."""
        if stop.signal is None:
            return
        self._look()
        at, name = self.position, signal.Signals(stop.signal).name
        raise Interrupted(
            f"{name} in epoch {at.epoch + 1}, after step {at.step}: saved; go on with "
            f"minires train --resume {self.folder.path}"
        )

    def summary(self) -> dict[str, Any]:
        """The last record of metrics.jsonl with what concerns the whole run; plain values."""
        named = {"model": self.config.model, "dataset": self.config.dataset}
        more = {} if self.sets.reader is None else {"skipped": len(self.sets.skipped)}
        return {"out": str(self.folder.path), **named, **self.position.summary(), **more}


def train(
    config: TrainConfig | None = None, out: str | Path | None = None, **options: Any
) -> dict[str, Any]:
    """Train from start to end and return the summary: `train(model="resnet20", epochs=3)`.

    `options` are fields of `TrainConfig`, and win over those of `config`.
    """
    return Trainer(dataclasses.replace(config or TrainConfig(), **options), out).run()
