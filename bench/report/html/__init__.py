"""The report: one HTML file about one or more run directories, for people who would rather look than read.

``collect`` reads the directories, ``pictures`` packs their samples, ``page`` renders ``templates/`` and ``static/``
around both. docs/report.md says how to read the page.
"""
