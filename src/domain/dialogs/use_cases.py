"""Opening, reading, changing and deleting dialogs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from src.domain.catalog.ports import CatalogView
from src.domain.completion.use_cases import resolve
from src.domain.dialogs.model import Dialog, DialogId, Message, MessageId
from src.domain.identity.model import Principal
from src.domain.unit_of_work import OpenUnitOfWork, UnitOfWork
from src.shared.clock import Clock
from src.shared.errors import NotFound
from src.shared.ids import new_id
from src.shared.pages import Page, PageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogPorts:
    """What dialogs are kept with. `open_reading` opens units of work that never wait for a writer."""

    open_uow: OpenUnitOfWork
    open_reading: OpenUnitOfWork
    catalog: CatalogView
    clock: Clock


async def create_dialog(principal: Principal, fields: Mapping[str, Any], ports: DialogPorts) -> Dialog:
    """Open a dialog with the given title, model, system_prompt, params and metadata. Raises NotFound (model)."""
    _check_model_and_agent(principal, fields, ports)
    now = ports.clock()
    dialog = Dialog(
        id=DialogId(new_id()),
        tenant_id=principal.tenant_id,
        user_id=principal.user_id,
        created_at=now,
        updated_at=now,
        **fields,
    )
    async with ports.open_uow(principal.tenant_id) as uow:
        await uow.dialogs.add(dialog)
        await uow.commit()
    return dialog


async def get_dialog(principal: Principal, dialog_id: DialogId, ports: DialogPorts) -> Dialog:
    """The user's own dialog. Raises NotFound."""
    async with ports.open_reading(principal.tenant_id) as uow:
        return await own_dialog(uow, principal, dialog_id)


async def list_dialogs(principal: Principal, page: PageRequest, search: str | None, ports: DialogPorts) -> Page[Dialog]:
    """The user's own dialogs, newest first."""
    async with ports.open_reading(principal.tenant_id) as uow:
        return await uow.dialogs.dialogs(principal.user_id, page, search=search)


async def update_dialog(
    principal: Principal, dialog_id: DialogId, changes: Mapping[str, Any], ports: DialogPorts
) -> Dialog:
    """Change what is named, leave the rest. Raises NotFound (dialog or model)."""
    _check_model_and_agent(principal, changes, ports)
    async with ports.open_uow(principal.tenant_id) as uow:
        dialog = replace(await own_dialog(uow, principal, dialog_id), **changes, updated_at=ports.clock())
        await uow.dialogs.update(dialog)
        await uow.commit()
    return dialog


async def delete_dialog(principal: Principal, dialog_id: DialogId, ports: DialogPorts) -> None:
    """Delete a dialog and its messages; what they cost stays in the ledger. Raises NotFound."""
    async with ports.open_uow(principal.tenant_id) as uow:
        if not await uow.dialogs.delete(dialog_id, principal.user_id):
            raise NotFound("No such dialog.")
        await uow.commit()


async def list_messages(
    principal: Principal, dialog_id: DialogId, page: PageRequest, ports: DialogPorts
) -> Page[Message]:
    """All messages of the tree, oldest first. Raises NotFound."""
    async with ports.open_reading(principal.tenant_id) as uow:
        await own_dialog(uow, principal, dialog_id)
        return await uow.dialogs.messages(dialog_id, page)


async def get_message(principal: Principal, dialog_id: DialogId, message_id: MessageId, ports: DialogPorts) -> Message:
    """One message of the user's own dialog. Raises NotFound."""
    async with ports.open_reading(principal.tenant_id) as uow:
        await own_dialog(uow, principal, dialog_id)
        message = await uow.dialogs.message(dialog_id, message_id)
    if message is None:
        raise NotFound("No such message.")
    return message


async def own_dialog(uow: UnitOfWork, principal: Principal, dialog_id: DialogId) -> Dialog:
    """Raises NotFound for what is unknown or another user's."""
    dialog = await uow.dialogs.dialog(dialog_id, principal.user_id)
    if dialog is None:
        raise NotFound("No such dialog.")
    return dialog


def _check_model_and_agent(principal: Principal, fields: Mapping[str, Any], ports: DialogPorts) -> None:
    if fields.get("agent") is not None:
        raise NotFound("No such agent.", param="agent")
    if fields.get("model") is not None:
        resolve(ports.catalog.current(), principal, fields["model"])
