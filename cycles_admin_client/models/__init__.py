"""Contains all the data models used in inputs and outputs; each loads when it is first asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .action_quota_list_response import ActionQuotaListResponse
    from .action_quota_reset_request import ActionQuotaResetRequest
    from .action_quota_reset_response import ActionQuotaResetResponse
    from .action_quota_state import ActionQuotaState
    from .admin_overview_response import AdminOverviewResponse
    from .amount import Amount
    from .api_key import ApiKey
    from .api_key_create_request import ApiKeyCreateRequest
    from .api_key_create_response import ApiKeyCreateResponse
    from .api_key_list_response import ApiKeyListResponse
    from .api_key_status import ApiKeyStatus
    from .api_key_update_request import ApiKeyUpdateRequest
    from .api_key_validation_request import ApiKeyValidationRequest
    from .api_key_validation_response import ApiKeyValidationResponse
    from .audit_log_entry import AuditLogEntry
    from .audit_log_list_response import AuditLogListResponse
    from .auth_introspect_response import AuthIntrospectResponse
    from .balance_response import BalanceResponse
    from .budget_bulk_action_request import BudgetBulkActionRequest
    from .budget_create_request import BudgetCreateRequest
    from .budget_filter import BudgetFilter
    from .budget_freeze_request import BudgetFreezeRequest
    from .budget_funding_request import BudgetFundingRequest
    from .budget_funding_response import BudgetFundingResponse
    from .budget_ledger import BudgetLedger
    from .budget_list_response import BudgetListResponse
    from .budget_status import BudgetStatus
    from .budget_update_request import BudgetUpdateRequest
    from .bulk_action_response import BulkActionResponse
    from .bulk_row import BulkRow
    from .commit_overage_policy import CommitOveragePolicy
    from .error_response import ErrorResponse
    from .event import Event
    from .event_list_response import EventListResponse
    from .funding_operation import FundingOperation
    from .list_api_keys_sort_dir import ListApiKeysSortDir
    from .list_audit_logs_sort_dir import ListAuditLogsSortDir
    from .list_budgets_sort_dir import ListBudgetsSortDir
    from .list_events_sort_dir import ListEventsSortDir
    from .list_policies_sort_dir import ListPoliciesSortDir
    from .list_tenant_events_sort_dir import ListTenantEventsSortDir
    from .list_tenant_webhooks_sort_dir import ListTenantWebhooksSortDir
    from .list_tenants_sort_dir import ListTenantsSortDir
    from .list_webhook_subscriptions_sort_dir import ListWebhookSubscriptionsSortDir
    from .policy import Policy
    from .policy_create_request import PolicyCreateRequest
    from .policy_list_response import PolicyListResponse
    from .policy_update_request import PolicyUpdateRequest
    from .policy_update_request_status import PolicyUpdateRequestStatus
    from .replay_request import ReplayRequest
    from .replay_response import ReplayResponse
    from .retry_policy import RetryPolicy
    from .rollover_policy import RolloverPolicy
    from .signed_amount import SignedAmount
    from .tenant import Tenant
    from .tenant_bulk_action_request import TenantBulkActionRequest
    from .tenant_bulk_action_request_action import TenantBulkActionRequestAction
    from .tenant_create_request import TenantCreateRequest
    from .tenant_create_request_reservation_expiry_policy import (
        TenantCreateRequestReservationExpiryPolicy,
    )
    from .tenant_filter import TenantFilter
    from .tenant_list_response import TenantListResponse
    from .tenant_reservation_expiry_policy import TenantReservationExpiryPolicy
    from .tenant_status import TenantStatus
    from .tenant_update_request import TenantUpdateRequest
    from .tenant_update_request_reservation_expiry_policy import (
        TenantUpdateRequestReservationExpiryPolicy,
    )
    from .unit import Unit
    from .webhook_bulk_action_request import WebhookBulkActionRequest
    from .webhook_bulk_action_request_action import WebhookBulkActionRequestAction
    from .webhook_create_request import WebhookCreateRequest
    from .webhook_create_response import WebhookCreateResponse
    from .webhook_delivery import WebhookDelivery
    from .webhook_delivery_list_response import WebhookDeliveryListResponse
    from .webhook_filter import WebhookFilter
    from .webhook_list_response import WebhookListResponse
    from .webhook_security_config import WebhookSecurityConfig
    from .webhook_status import WebhookStatus
    from .webhook_subscription import WebhookSubscription
    from .webhook_test_response import WebhookTestResponse
    from .webhook_update_request import WebhookUpdateRequest

__all__ = (
    "ActionQuotaListResponse",
    "ActionQuotaResetRequest",
    "ActionQuotaResetResponse",
    "ActionQuotaState",
    "AdminOverviewResponse",
    "Amount",
    "ApiKey",
    "ApiKeyCreateRequest",
    "ApiKeyCreateResponse",
    "ApiKeyListResponse",
    "ApiKeyStatus",
    "ApiKeyUpdateRequest",
    "ApiKeyValidationRequest",
    "ApiKeyValidationResponse",
    "AuditLogEntry",
    "AuditLogListResponse",
    "AuthIntrospectResponse",
    "BalanceResponse",
    "BudgetBulkActionRequest",
    "BudgetCreateRequest",
    "BudgetFilter",
    "BudgetFreezeRequest",
    "BudgetFundingRequest",
    "BudgetFundingResponse",
    "BudgetLedger",
    "BudgetListResponse",
    "BudgetStatus",
    "BudgetUpdateRequest",
    "BulkActionResponse",
    "BulkRow",
    "CommitOveragePolicy",
    "ErrorResponse",
    "Event",
    "EventListResponse",
    "FundingOperation",
    "ListApiKeysSortDir",
    "ListAuditLogsSortDir",
    "ListBudgetsSortDir",
    "ListEventsSortDir",
    "ListPoliciesSortDir",
    "ListTenantEventsSortDir",
    "ListTenantsSortDir",
    "ListTenantWebhooksSortDir",
    "ListWebhookSubscriptionsSortDir",
    "Policy",
    "PolicyCreateRequest",
    "PolicyListResponse",
    "PolicyUpdateRequest",
    "PolicyUpdateRequestStatus",
    "ReplayRequest",
    "ReplayResponse",
    "RetryPolicy",
    "RolloverPolicy",
    "SignedAmount",
    "Tenant",
    "TenantBulkActionRequest",
    "TenantBulkActionRequestAction",
    "TenantCreateRequest",
    "TenantCreateRequestReservationExpiryPolicy",
    "TenantFilter",
    "TenantListResponse",
    "TenantReservationExpiryPolicy",
    "TenantStatus",
    "TenantUpdateRequest",
    "TenantUpdateRequestReservationExpiryPolicy",
    "Unit",
    "WebhookBulkActionRequest",
    "WebhookBulkActionRequestAction",
    "WebhookCreateRequest",
    "WebhookCreateResponse",
    "WebhookDelivery",
    "WebhookDeliveryListResponse",
    "WebhookFilter",
    "WebhookListResponse",
    "WebhookSecurityConfig",
    "WebhookStatus",
    "WebhookSubscription",
    "WebhookTestResponse",
    "WebhookUpdateRequest",
)

_MODULES = {
    "ActionQuotaListResponse": ".action_quota_list_response",
    "ActionQuotaResetRequest": ".action_quota_reset_request",
    "ActionQuotaResetResponse": ".action_quota_reset_response",
    "ActionQuotaState": ".action_quota_state",
    "AdminOverviewResponse": ".admin_overview_response",
    "Amount": ".amount",
    "ApiKey": ".api_key",
    "ApiKeyCreateRequest": ".api_key_create_request",
    "ApiKeyCreateResponse": ".api_key_create_response",
    "ApiKeyListResponse": ".api_key_list_response",
    "ApiKeyStatus": ".api_key_status",
    "ApiKeyUpdateRequest": ".api_key_update_request",
    "ApiKeyValidationRequest": ".api_key_validation_request",
    "ApiKeyValidationResponse": ".api_key_validation_response",
    "AuditLogEntry": ".audit_log_entry",
    "AuditLogListResponse": ".audit_log_list_response",
    "AuthIntrospectResponse": ".auth_introspect_response",
    "BalanceResponse": ".balance_response",
    "BudgetBulkActionRequest": ".budget_bulk_action_request",
    "BudgetCreateRequest": ".budget_create_request",
    "BudgetFilter": ".budget_filter",
    "BudgetFreezeRequest": ".budget_freeze_request",
    "BudgetFundingRequest": ".budget_funding_request",
    "BudgetFundingResponse": ".budget_funding_response",
    "BudgetLedger": ".budget_ledger",
    "BudgetListResponse": ".budget_list_response",
    "BudgetStatus": ".budget_status",
    "BudgetUpdateRequest": ".budget_update_request",
    "BulkActionResponse": ".bulk_action_response",
    "BulkRow": ".bulk_row",
    "CommitOveragePolicy": ".commit_overage_policy",
    "ErrorResponse": ".error_response",
    "Event": ".event",
    "EventListResponse": ".event_list_response",
    "FundingOperation": ".funding_operation",
    "ListApiKeysSortDir": ".list_api_keys_sort_dir",
    "ListAuditLogsSortDir": ".list_audit_logs_sort_dir",
    "ListBudgetsSortDir": ".list_budgets_sort_dir",
    "ListEventsSortDir": ".list_events_sort_dir",
    "ListPoliciesSortDir": ".list_policies_sort_dir",
    "ListTenantEventsSortDir": ".list_tenant_events_sort_dir",
    "ListTenantWebhooksSortDir": ".list_tenant_webhooks_sort_dir",
    "ListTenantsSortDir": ".list_tenants_sort_dir",
    "ListWebhookSubscriptionsSortDir": ".list_webhook_subscriptions_sort_dir",
    "Policy": ".policy",
    "PolicyCreateRequest": ".policy_create_request",
    "PolicyListResponse": ".policy_list_response",
    "PolicyUpdateRequest": ".policy_update_request",
    "PolicyUpdateRequestStatus": ".policy_update_request_status",
    "ReplayRequest": ".replay_request",
    "ReplayResponse": ".replay_response",
    "RetryPolicy": ".retry_policy",
    "RolloverPolicy": ".rollover_policy",
    "SignedAmount": ".signed_amount",
    "Tenant": ".tenant",
    "TenantBulkActionRequest": ".tenant_bulk_action_request",
    "TenantBulkActionRequestAction": ".tenant_bulk_action_request_action",
    "TenantCreateRequest": ".tenant_create_request",
    "TenantCreateRequestReservationExpiryPolicy": ".tenant_create_request_reservation_expiry_policy",
    "TenantFilter": ".tenant_filter",
    "TenantListResponse": ".tenant_list_response",
    "TenantReservationExpiryPolicy": ".tenant_reservation_expiry_policy",
    "TenantStatus": ".tenant_status",
    "TenantUpdateRequest": ".tenant_update_request",
    "TenantUpdateRequestReservationExpiryPolicy": ".tenant_update_request_reservation_expiry_policy",
    "Unit": ".unit",
    "WebhookBulkActionRequest": ".webhook_bulk_action_request",
    "WebhookBulkActionRequestAction": ".webhook_bulk_action_request_action",
    "WebhookCreateRequest": ".webhook_create_request",
    "WebhookCreateResponse": ".webhook_create_response",
    "WebhookDelivery": ".webhook_delivery",
    "WebhookDeliveryListResponse": ".webhook_delivery_list_response",
    "WebhookFilter": ".webhook_filter",
    "WebhookListResponse": ".webhook_list_response",
    "WebhookSecurityConfig": ".webhook_security_config",
    "WebhookStatus": ".webhook_status",
    "WebhookSubscription": ".webhook_subscription",
    "WebhookTestResponse": ".webhook_test_response",
    "WebhookUpdateRequest": ".webhook_update_request",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_MODULES[name], __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
