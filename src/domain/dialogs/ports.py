"""Where dialogs are kept."""

from collections.abc import Sequence
from typing import Protocol

from src.domain.dialogs.model import Dialog, DialogId, Exchange, Message, MessageId
from src.domain.identity.model import UserId
from src.shared.pages import Page, PageRequest


class DialogRepository(Protocol):
    """Dialogs of one tenant. Every question names the user too: another user's dialog is not there.

    Messages of calls are not written here: they commit with their hold, through the Ledger.
    """

    async def add(self, dialog: Dialog) -> None: ...

    async def dialog(self, dialog_id: DialogId, user_id: UserId, *, still: bool = False) -> Dialog | None:
        """With `still`, nobody else moves its head until the unit of work is over."""
        ...

    async def chat_dialog(self, user_id: UserId) -> Dialog | None:
        """The user's dialog of kind `chat`."""
        ...

    async def dialogs(self, user_id: UserId, page: PageRequest, *, search: str | None) -> Page[Dialog]:
        """Newest first, without the one of kind `chat`; `search` matches titles and message contents."""
        ...

    async def update(self, dialog: Dialog) -> None:
        """Title, model, agent, system prompt, params, metadata; the head is left alone."""
        ...

    async def delete(self, dialog_id: DialogId, user_id: UserId) -> bool:
        """With its messages; what they cost stays in the ledger."""
        ...

    async def message(self, dialog_id: DialogId, message_id: MessageId) -> Message | None: ...

    async def said(self, message_id: MessageId, user_id: UserId) -> Message | None:
        """The message of that id in any of the user's dialogs."""
        ...

    async def append(self, dialog: Dialog, messages: Sequence[Message]) -> None:
        """Messages that no call brought, parents first; the last one becomes the dialog's head."""
        ...

    async def change(self, message: Message) -> None:
        """Content, parts and settings of a message that has ended."""
        ...

    async def remove(self, message: Message) -> None:
        """Take a message out of its tree: what hangs below it hangs below its parent from now on."""
        ...

    async def has_children(self, message: Message) -> bool:
        """Whether anything hangs below it."""
        ...

    async def request_cancel(self, dialog_id: DialogId, message_id: MessageId) -> None:
        """Ask whoever generates the answer to stop."""
        ...

    async def messages(self, dialog_id: DialogId, page: PageRequest) -> Page[Message]:
        """Oldest first."""
        ...

    async def path(self, dialog_id: DialogId, leaf_id: MessageId, *, limit: int) -> list[Message]:
        """The messages from the root (or `limit` before the leaf) down to the leaf."""
        ...

    async def exchanges(self, user_id: UserId, *, limit: int) -> list[Exchange]:
        """The user's one-shot questions with their answers, newest first."""
        ...
