"""Methods of the library peft inside a base model, trained and scored as an MTA is; nothing here needs peft before it is used."""
