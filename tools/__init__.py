"""Programs for those who work on LiveTalk; not part of the package."""
