"""What is known of public models without asking a hub (`known`)."""
