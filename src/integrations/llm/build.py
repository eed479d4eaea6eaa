"""From catalog rows to models that can be called."""

from collections.abc import Callable, Mapping
from functools import partial

from src.domain.catalog.model import Model, Provider, ProviderKind, WireFormat
from src.domain.completion.model import Failure, ToldCount, UpstreamFailed, UpstreamRequest
from src.domain.completion.ports import ChatModel, Upstreams
from src.integrations.llm import embeddings, tool_names
from src.integrations.llm.anthropic.calls import AnthropicMessages
from src.integrations.llm.builtin import BuiltinModel
from src.integrations.llm.builtin_server import BuiltinServer
from src.integrations.llm.clients import ProviderClients
from src.integrations.llm.compatible_servers import (
    base_url_setting,
    default_base_url,
    is_at_openais,
    is_openais,
    key_settings,
)
from src.integrations.llm.counting import asked_count
from src.integrations.llm.custom_tools import CustomToolsAsFunctions, custom_names
from src.integrations.llm.google import relay as relay_google
from src.integrations.llm.google.calls import GoogleGenAI
from src.integrations.llm.lanes import Missing, RelayedWhereThere, SameFormatRelayed
from src.integrations.llm.openai.calls import OpenAIChat
from src.integrations.llm.openai.object_answers import AnswersInObjects
from src.integrations.llm.openai.request import MAX_COMPLETION_TOKENS, MAX_TOKENS
from src.integrations.llm.relay import Relay, Target
from src.integrations.llm.tool_names import FittingToolNames

DEFAULT_CONNECT_TIMEOUT_S = 5.0
DEFAULT_READ_TIMEOUT_S = 300.0


class ProviderModels(Upstreams):
    """Providers as they are configured here.

    `secrets` maps the names of key settings (OPENAI_API_KEY, ...) to keys, `base_urls` those of address settings
    (OPENAI_BASE_URL, ...) to addresses; a catalog row's own base URL comes before them. `builtin` None switches the
    built-in model off. The read timeout is the longest silence of a provider, not the length of an answer.
    """

    def __init__(
        self,
        secrets: Mapping[str, str],
        base_urls: Mapping[str, str] | None = None,
        connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S,
        read_timeout_s: float = DEFAULT_READ_TIMEOUT_S,
        builtin: BuiltinServer | None = None,
    ) -> None:
        self._secrets = secrets
        self._base_urls = base_urls or {}
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._builtin = builtin
        self._missing = Missing()
        self._clients = ProviderClients(connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)

    def chat_model(self, model: Model, provider: Provider) -> ChatModel:
        """Raises UpstreamFailed (credentials) where the provider's key, or the built-in model, is missing."""
        if model.capabilities.embeddings:
            return self._embedding_model(model, provider)
        if provider.kind is ProviderKind.BUILTIN:
            return self._builtin_model()
        api_key = self._api_key(provider)
        base_url = self._base_url(provider)
        match provider.kind:
            case ProviderKind.OPENAI:
                return self._openai(base_url, api_key, _cap_field(provider, base_url), provider)
            case ProviderKind.ANTHROPIC:
                return self._anthropic(base_url, api_key)
            case ProviderKind.GOOGLE:
                return self._google(base_url, api_key, model.upstream)

    def is_ready(self, provider: Provider) -> bool:
        """Whether its key is configured; the built-in model always has at least its fallback."""
        if provider.kind is ProviderKind.BUILTIN:
            return self._builtin is not None
        names = key_settings(provider)
        return not names or any(self._secrets.get(name) for name in names)

    async def count_prompt(self, request: UpstreamRequest, provider: Provider) -> ToldCount:
        """Ask the provider's own endpoint for counting, where it has one for the client's format."""
        return await asked_count(self._clients.session, self._base_url(provider), self._api_key(provider), request)

    async def close(self) -> None:
        """Close every connection and end the built-in model's process."""
        await self._clients.close()
        if self._builtin is not None:
            await self._builtin.close()

    def _builtin_model(self) -> ChatModel:
        if self._builtin is None:
            raise UpstreamFailed(Failure.CREDENTIALS, "The built-in model is switched off here.")
        return BuiltinModel(self._builtin, lambda base_url: self._openai(base_url, None, MAX_TOKENS))

    def _embedding_model(self, model: Model, provider: Provider) -> ChatModel:
        """Raises UpstreamFailed (unsupported) for providers that make no vectors."""
        own = embeddings.FORMATS.get(provider.kind)
        if own is None:
            raise UpstreamFailed(Failure.UNSUPPORTED, f"The provider {provider.name} makes no vectors.")
        api_key, base_url = self._api_key(provider), self._base_url(provider)
        relay = partial(self._relay, headers=own.credentials(api_key) if api_key else {}, cap_field="")
        relays = {each: partial(relay, each, base_url + path) for each, path in own.paths(model.upstream).items()}
        return SameFormatRelayed(embeddings.TranslatedEmbeddings(relays[own.wire](), own), relays)

    def _openai(
        self, base_url: str, api_key: str | None, cap_field: str, provider: Provider | None = None
    ) -> ChatModel:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        relay = partial(self._relay, headers=headers, cap_field=cap_field)
        chat: ChatModel = OpenAIChat(self._clients.openai(base_url, api_key), cap_field=cap_field)
        chat = FittingToolNames(AnswersInObjects(chat), tool_names.OPENAIS)
        is_compatible = cap_field != MAX_COMPLETION_TOKENS
        if is_compatible:
            chat = CustomToolsAsFunctions(chat)
        relays = {
            WireFormat.CHAT_COMPLETIONS: partial(relay, WireFormat.CHAT_COMPLETIONS, f"{base_url}/chat/completions")
        }
        if provider is not None and WireFormat.RESPONSES in provider.formats:
            relays[WireFormat.RESPONSES] = partial(self._responses, relay, f"{base_url}/responses", chat, provider)
        return SameFormatRelayed(chat, relays, _has_custom_tools if is_compatible else None)

    def _responses(
        self, relay: Callable[[WireFormat, str], ChatModel], url: str, chat: ChatModel, provider: Provider
    ) -> ChatModel:
        """Servers in the place of OpenAI often speak chat completions alone; what an operator says is believed.

        OpenAI itself says 404 of what one request names, which must not take the endpoint from all the others.
        """
        relayed = relay(WireFormat.RESPONSES, url)
        has_it = provider.responses or is_at_openais(url)
        return relayed if has_it else RelayedWhereThere(relayed, chat, url, self._missing)

    def _anthropic(self, base_url: str, api_key: str | None) -> ChatModel:
        headers = {"x-api-key": api_key} if api_key else {}
        relay = partial(self._relay, headers=headers, cap_field=MAX_TOKENS)
        messages = AnthropicMessages(self._clients.anthropic(base_url, api_key))
        return SameFormatRelayed(
            CustomToolsAsFunctions(FittingToolNames(messages, tool_names.ANTHROPICS)),
            {WireFormat.MESSAGES: lambda: relay(WireFormat.MESSAGES, f"{base_url}/v1/messages")},
        )

    def _google(self, base_url: str, api_key: str | None, upstream: str) -> ChatModel:
        headers = {"x-goog-api-key": api_key} if api_key else {}
        relay = partial(self._relay, headers=headers, cap_field=relay_google.CAP_FIELD)
        url = f"{base_url}/v1beta/{relay_google.resource(upstream)}"
        generate = GoogleGenAI(self._clients.google(base_url, api_key))
        return SameFormatRelayed(
            CustomToolsAsFunctions(FittingToolNames(generate, tool_names.GOOGLES)),
            {WireFormat.GENERATE_CONTENT: lambda: relay(WireFormat.GENERATE_CONTENT, url)},
        )

    def _relay(self, wire_format: WireFormat, url: str, *, headers: Mapping[str, str], cap_field: str) -> ChatModel:
        return Relay(
            self._clients.session,
            Target(format=wire_format, url=url, headers=headers, cap_field=cap_field),
            connect_timeout_s=self._connect_timeout_s,
            read_timeout_s=self._read_timeout_s,
        )

    def _api_key(self, provider: Provider) -> str | None:
        names = key_settings(provider)
        if not names:
            return None
        key = next((key for name in names if (key := self._secrets.get(name))), None)
        if key is None:
            raise UpstreamFailed(
                Failure.CREDENTIALS,
                f"The provider {provider.name} has no API key here: an operator must set {' or '.join(names)}.",
            )
        return key

    def _base_url(self, provider: Provider) -> str:
        setting = base_url_setting(provider)
        configured = self._base_urls.get(setting) if setting else None
        base_url = provider.base_url or configured or default_base_url(provider)
        assert base_url is not None  # noqa: S101 - only the built-in model has none
        return base_url.rstrip("/")


def _has_custom_tools(request: UpstreamRequest) -> bool:
    """Which servers that are compatible with OpenAI's chat completions know nothing of."""
    wire = request.chat.wire
    return wire is not None and wire.format is WireFormat.CHAT_COMPLETIONS and bool(custom_names(request))


def _cap_field(provider: Provider, base_url: str) -> str:
    """OpenAI itself wants another field than the servers that are compatible with it."""
    return MAX_COMPLETION_TOKENS if is_openais(provider, base_url) else MAX_TOKENS
