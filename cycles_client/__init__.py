"""A client library for accessing Cycles Budget Authority API"""
