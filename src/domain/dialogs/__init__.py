"""Dialogs and their messages: a tree of questions and answers that belongs to a user of a tenant."""
