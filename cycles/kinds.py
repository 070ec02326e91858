"""The built-in kinds of actions (registry 0.1.26), for use without a server: `BUILT_IN`, and `for_tool` for MCP tools.

`client.action_kinds()` reads the registry of a server, which may contain more kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cycles._core.values.action_kinds import ActionKind
from cycles._errors import InvalidRequestError

UNKNOWN: Final = "unknown.call"
"""The kind of a tool that no other kind fits."""

# One kind in each row: kind, risk class, policy keys that it declares, beginnings of the names of its MCP tools.
_TABLE: Final = """
llm.completion; side_effect; -; llm_ chat_ complete_ openai_chat anthropic_ generate_text
llm.embedding; read_only; -; embed_ embedding_ openai_embed get_embedding encode_text
llm.structured_output; side_effect; host; structured_output json_mode function_call
agent.spawn; side_effect; -; spawn_agent create_agent fork_agent new_agent
agent.delegate; side_effect; host; delegate_ handoff_ assign_agent route_to_agent
agent.message; side_effect; -; send_to_agent agent_message a2a_send inter_agent
agent.human_escalation; external_side_effect; recipient_domain; escalate_ human_review request_approval ask_human
web.search; read_only; -; search_ web_search search
http.get; read_only; host; http_get fetch_url get_url
http.post; external_side_effect; host; http_post post_url call_api api_call
http.put; external_side_effect; host; http_put http_patch update_api
http.delete; external_side_effect; host; http_delete delete_api
http.graphql; side_effect; host; graphql_ gql_query gql_mutate
message.email.send; external_side_effect; host recipient_domain; send_email email_ smtp_ sendgrid_
message.slack.post; external_side_effect; host; slack_ post_slack send_slack
message.sms.send; external_side_effect; recipient_domain; send_sms sms_ twilio_
message.chat.post; external_side_effect; host; teams_ discord_ mattermost_ chat_send post_message
db.query; read_only; resource_type=table; db_query query_db sql_query select_
db.write; side_effect; resource_type=table; db_write db_insert db_update db_delete sql_write
db.schema_change; high_risk; resource_type=table; db_migrate alter_table create_table drop_table
crm.record.read; read_only; resource_type=object_type; get_contact get_lead crm_read salesforce_get
crm.record.write; side_effect; resource_type=object_type; create_contact update_contact crm_write salesforce_create
crm.record.delete; external_side_effect; resource_type=object_type; delete_contact crm_delete salesforce_delete
file.read; read_only; path_prefix; read_file file_read get_file open_file
file.write; local_mutation; path_prefix; write_file file_write create_file save_file
file.delete; side_effect; path_prefix; delete_file file_delete remove_file
code.exec; high_risk; path_prefix; exec_ run_code python_exec bash_exec js_exec
code.deploy; high_risk; host; deploy_ code_publish vercel_deploy lambda_deploy
code.lint; read_only; path_prefix; lint_ check_code type_check static_analysis
vector.query; read_only; resource_type=collection; vector_search similarity_search pinecone_query
vector.upsert; side_effect; resource_type=collection; vector_upsert embed_and_store pinecone_upsert
vector.delete; side_effect; resource_type=collection; vector_delete pinecone_delete remove_embedding delete_vectors
memory.read; read_only; resource_type=store; memory_read recall_ retrieve_memory rag_query knowledge_search
memory.write; local_mutation; resource_type=store; memory_write memorize_ store_memory rag_ingest knowledge_store
memory.delete; side_effect; resource_type=store; memory_delete forget_ clear_memory rag_delete
reasoning.plan; side_effect; -; plan_ create_plan decompose_ reason_
reasoning.reflect; side_effect; -; reflect_ self_evaluate critique_ review_output
calendar.read; read_only; host; get_calendar list_events check_availability
calendar.write; external_side_effect; host; create_event update_event schedule_meeting
payment.charge; high_risk; host; charge_ payment_ stripe_charge process_payment
payment.refund; high_risk; host; refund_ issue_refund stripe_refund
image.generate; external_side_effect; host; generate_image create_image dalle_ image_gen text_to_image
image.edit; external_side_effect; host; edit_image inpaint_ outpaint_ image_edit
video.generate; high_risk; host; generate_video create_video text_to_video runway_
video.transcode; side_effect; host path_prefix; transcode_ encode_video ffmpeg_
audio.generate; external_side_effect; host; generate_audio text_to_speech tts_ elevenlabs_
audio.transcribe; read_only; host; transcribe_ speech_to_text whisper_ deepgram_
vision.analyze; side_effect; host; analyze_image vision_ describe_image image_understand gpt4v_
vision.ocr; side_effect; host; ocr_ extract_text read_document document_ocr
vision.parse_document; side_effect; host path_prefix; parse_document extract_form pdf_extract document_parse parse_pdf
social.post.create; external_side_effect; host; post_tweet create_post publish_ tweet_ linkedin_post
social.post.delete; external_side_effect; host; delete_post delete_tweet remove_post
social.dm.send; external_side_effect; host recipient_domain; send_dm send_message dm_ direct_message
notification.push.send; external_side_effect; host; send_push push_notification fcm_ apns_ notify_
notification.webhook.trigger; external_side_effect; host; trigger_webhook send_webhook webhook_notify
storage.upload; side_effect; host path_prefix; upload_file s3_put gcs_upload blob_upload
storage.download; read_only; host path_prefix; download_file s3_get gcs_download blob_download
storage.delete; side_effect; host path_prefix; delete_object s3_delete gcs_delete blob_delete
document.create; side_effect; host; create_doc create_document new_page notion_create
document.edit; side_effect; host; edit_doc update_document modify_page notion_update gdocs_edit
document.share; external_side_effect; host recipient_domain; share_doc share_document grant_access set_permissions
unknown.call; side_effect; -; -
"""


def _kind(row: str) -> ActionKind:
    kind, risk_class, keys, prefixes = (cell.strip() for cell in row.split(";"))
    pairs = (key.partition("=") for key in keys.split() if key != "-")
    declared = {name: value for name, _, value in pairs}
    return ActionKind(
        kind=kind,
        risk_class=risk_class,
        policy_key_spec=declared,
        mcp_tool_prefixes=[prefix for prefix in prefixes.split() if prefix != "-"],
    )


BUILT_IN: Final[Mapping[str, ActionKind]] = MappingProxyType(
    {kind.kind: kind for kind in map(_kind, _TABLE.strip().splitlines())}
)
"""Each built-in kind by its name. `policy_key_spec` maps the policy keys that it declares to what they mean there."""

_BY_PREFIX: Final = sorted(
    ((prefix, kind.kind) for kind in BUILT_IN.values() for prefix in kind.mcp_tool_prefixes or ()),
    key=lambda pair: len(pair[0]),
    reverse=True,
)


def for_tool(name: str) -> str:
    """Return the kind of an MCP tool by its name: that with the longest matching beginning, or ``unknown.call``.

    A tool that names its kind itself (annotation ``x-cycles-action-kind``) does not need this function.

    Raises:
        InvalidRequestError: The name is not a string.
    """
    if not isinstance(name, str):
        raise InvalidRequestError(f"name must be the name of a tool, a str: got {name!r:.80}")
    return next((kind for prefix, kind in _BY_PREFIX if name.startswith(prefix)), UNKNOWN)
