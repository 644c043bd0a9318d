"""Alibaba's DashScope: the adapter, and the table of its models."""

from app.providers.dashscope.adapter import DashScope

__all__ = ["DashScope"]
