"""What people read: report, dataset card, `lema show`."""
